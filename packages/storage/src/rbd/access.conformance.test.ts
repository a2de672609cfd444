// SPDX-License-Identifier: Apache-2.0
/**
 * Goal: what a guest can do to Ceph that broke out of its QEMU and has its key. Method: the programs `qemu-io`, `rbd`, `rados` and `ceph`
 * with the identity that the driver granted, against a real cluster that two VMs share.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '@busbar/core/clock/clock';
import type { Epoch, ImageId, VmId, VolumeId } from '@busbar/core/ids';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { nativeCode } from '@busbar/native/errors';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { RbdConfig } from '../config.ts';
import type { AccessGrant, AccessRequest } from '../driver.ts';
import { type MiniCeph, startMiniCeph } from '../testing/ceph.ts';
import { MIB, noise, streamOf } from '../testing/streams.ts';
import { accessCaps, accessEntity } from './access.ts';
import { CephClient } from './client.ts';
import { type RbdDriver, rbdDriver } from './driver.ts';

const run = promisify(execFile);
/** Ceph's default is 30 s; a test of who takes a lock over need not wait so long. */
const WATCH_TIMEOUT_S = 3;
const SIZE = BigInt(16 * MIB);

let ceph: MiniCeph;
let scratch: string;
let driver: RbdDriver;
let image: ImageId;
/** One for each identity that sends commands. */
const clients = new Map<string, CephClient>();
const content = noise(MIB, 7);

const configOf = (more: object) => {
  const { pool, conf: cephConf, user, keyring } = ceph;
  // Patient, because the machine that runs the tests may be busy.
  const patience = { timeouts: { mountS: 15, monOpS: 15, osdOpS: 20 }, deadlines: { callMs: 40_000 } };
  const given = { driver: 'rbd', pool, cephConf, user, keyring, identities: 'vm', spoolDir: scratch, ...patience };
  return RbdConfig.parse({ ...given, ...more });
};

interface Vm {
  readonly vmId: VmId;
  readonly volumeId: VolumeId;
  readonly name: string;
}
const newVm = async (fromImage: boolean): Promise<Vm> => {
  const [vmId, volumeId] = [systemRandom.uuid() as VmId, systemRandom.uuid() as VolumeId];
  if (fromImage) await driver.cloneVolume({ volumeId, imageId: image, sizeBytes: SIZE });
  else await driver.createVolume({ volumeId, sizeBytes: SIZE });
  return { vmId, volumeId, name: `volume.${volumeId}` };
};
const request = (vm: Vm, more: Partial<AccessRequest['disks'][number]> = {}, epoch = 1n): AccessRequest => ({
  vmId: vm.vmId,
  epoch: epoch as Epoch,
  disks: [{ volumeId: vm.volumeId, imageId: null, ...more }],
});

/** The programs as a guest would run them that has this identity. */
class Guest {
  readonly user: string;
  readonly keyring: string;
  constructor({ user }: AccessGrant) {
    this.user = user;
    this.keyring = join(scratch, `${user}.keyring`);
  }
  static async of(grant: AccessGrant | null): Promise<Guest> {
    if (grant === null) throw new Error('nothing was granted');
    const guest = new Guest(grant);
    await writeFile(guest.keyring, `[client.${grant.user}]\n\tkey = ${Buffer.from(grant.key).toString('base64')}\n`);
    return guest;
  }
  as(program: string, ...args: string[]): Promise<string> {
    const own = ['--conf', ceph.conf, '--id', this.user, '--keyring', this.keyring];
    return tool(program, ...own, ...args);
  }
  /** Of a command to the monitors, the errno: 0 when it is obeyed. */
  command(command: object): Promise<number> {
    return commandAs(this.user, this.keyring, command);
  }
  disk(name: string): string {
    return `rbd:${ceph.pool}/${name}:id=${this.user}:conf=${ceph.conf}:keyring=${this.keyring}`;
  }
  io(name: string, ...commands: string[]): Promise<string> {
    return tool('qemu-io', '-f', 'raw', this.disk(name), ...commands.flatMap((command) => ['-c', command]));
  }
}

async function commandAs(user: string, keyring: string, command: object): Promise<number> {
  const deps = { clock: systemClock, logger: silentLogger };
  const client = clients.get(keyring) ?? new CephClient(configOf({ user, keyring }), deps);
  clients.set(keyring, client);
  try {
    await client.call('monCommand', { command: { ...command } });
    return 0;
  } catch (error) {
    return Number(nativeCode(error) ?? -1);
  }
}

/** What it printed; when it failed, its words after `FAILED`. */
async function tool(program: string, ...args: string[]): Promise<string> {
  try {
    const { stdout, stderr } = await run(program, args, { timeout: 60_000 });
    return stdout + stderr;
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    return `FAILED ${stdout}${stderr}`;
  }
}
const DENIED = /^FAILED[\s\S]*(Operation not permitted|EACCES|access denied|\(1\)|\(13\))/;

beforeAll(async () => {
  ceph = await startMiniCeph();
  await ceph.ceph('config', 'set', 'osd', 'osd_client_watch_timeout', String(WATCH_TIMEOUT_S));
  scratch = await mkdtemp(join(tmpdir(), 'busbar-access-'));
  driver = rbdDriver(configOf({}), { clock: systemClock, logger: silentLogger, random: systemRandom });
  image = systemRandom.uuid() as ImageId;
  const signal = new AbortController().signal;
  const source = streamOf(content);
  await driver.importImage({ imageId: image, format: 'raw', sizeBytes: BigInt(MIB), sha256: null, source, signal });
});
afterAll(async () => {
  await Promise.all([...clients.values()].map((client) => client.close()));
  await driver?.close();
  await ceph?.stop();
  if (scratch !== undefined) await rm(scratch, { recursive: true, force: true });
});

describe('the Ceph identity of a VM', () => {
  test('opens its disk: reads the image through it, writes, flushes, discards, and reads that back', async () => {
    const vm = await newVm(true);
    const guest = await Guest.of(await driver.grantAccess(request(vm, { imageId: image })));
    const exported = join(scratch, 'first-MiB');
    const read = ['convert', '-f', 'raw', '-O', 'raw', guest.disk(vm.name), exported];
    expect(await tool('qemu-img', ...read)).not.toContain('FAILED');
    expect((await readFile(exported)).subarray(0, MIB).equals(content)).toBe(true);
    const said = await guest.io(vm.name, 'write -P 0x55 64k 4k', 'flush', 'discard 4M 4M', 'read -P 0x55 64k 4k');
    expect(said).not.toMatch(/FAILED|failed|error/i);
    expect(said.match(/^(wrote|discard|read) /gm)).toHaveLength(3);
  });

  test('finds nothing of other VMs and of the pool', async () => {
    const [own, other] = [await newVm(true), await newVm(true)];
    const guest = await Guest.of(await driver.grantAccess(request(own, { imageId: image })));
    const owner = await Guest.of(await driver.grantAccess(request(other, { imageId: image })));
    expect(await owner.io(other.name, 'write -P 0x66 0 64k', 'flush')).toMatch(/^wrote/);
    const otherId = (JSON.parse(await ceph.rbd('info', '--format', 'json', other.name)) as { id: string }).id;
    const imageId = (JSON.parse(await ceph.rbd('info', '--format', 'json', `image.${image}`)) as { id: string }).id;
    expect(await guest.io(own.name, 'read 0 4k')).toMatch(/^read/); // so the identity works
    const pool = ['--pool', ceph.pool];
    const denied = [
      await guest.io(other.name, 'read 0 4k'),
      await guest.io(`image.${image}`, 'write 0 4k'),
      await guest.as('rbd', ...pool, 'ls'),
      await guest.as('rados', ...pool, 'ls'),
      await guest.as('rados', ...pool, 'get', `rbd_data.${otherId}.0000000000000000`, '-'),
      await guest.as('rados', ...pool, 'get', `rbd_id.${other.name}`, '-'),
      await guest.as('rados', ...pool, 'listomapvals', `rbd_header.${otherId}`),
      await guest.as('rados', ...pool, 'listwatchers', `rbd_header.${otherId}`),
      await guest.as('rados', ...pool, 'listomapvals', 'rbd_directory'),
      await guest.as('rados', ...pool, 'listomapvals', 'rbd_children'),
      await guest.as('rados', ...pool, 'rm', `rbd_data.${otherId}.0000000000000000`),
      await guest.as('rados', ...pool, 'rm', `rbd_data.${imageId}.0000000000000000`),
      await guest.as('rados', ...pool, 'setomapval', `rbd_header.${imageId}`, 'size', 'x'),
    ];
    for (const [index, said] of denied.entries()) expect([index, said]).toEqual([index, expect.stringMatching(DENIED)]);
    expect(await owner.io(other.name, 'read -P 0x66 0 64k')).toMatch(/^read/);
  });

  test('reads no image that its records do not name, whatever its volume says of itself', async () => {
    const vm = await newVm(true);
    const guest = await Guest.of(await driver.grantAccess(request(vm)));
    expect(await guest.io(vm.name, 'read 0 4k')).toMatch(/FAILED|not permitted|failed/);
  });

  test('may fence single clients, and neither hosts nor ranges, and unfence nobody', async () => {
    const vm = await newVm(false);
    const guest = await Guest.of(await driver.grantAccess(request(vm)));
    const add = (more: object) => guest.command({ prefix: 'osd blocklist', blocklistop: 'add', ...more });
    for (const addr of ['10.9.9.9:0/0', '10.9.9.9', '[fd00::9]:0/0'])
      expect([addr, await add({ addr })]).toEqual([addr, 13]);
    expect(await add({ addr: '10.9.9.0/24', range: 'range' })).toBe(13);
    expect(await add({ addr: '10.9.9.9:0/4711', expire: 60.5 })).toBe(0);
    const rm = { prefix: 'osd blocklist', blocklistop: 'rm', addr: '10.9.9.9:0/4711' };
    expect(await guest.command(rm)).toBe(13);
  });

  test('asks the monitors for no keys', async () => {
    const vm = await newVm(false);
    const guest = await Guest.of(await driver.grantAccess(request(vm)));
    for (const command of [
      { prefix: 'auth ls' },
      { prefix: 'auth get', entity: 'client.admin' },
      { prefix: 'config-key ls' },
      { prefix: 'pg dump' },
    ]) {
      expect([command, await guest.command(command)]).toEqual([command, 13]);
    }
    expect(await guest.command({ prefix: 'osd dump' })).toBe(0); // so it does ask
  });

  test('finds the clients of controllers in the log of the monitors, and stops none by fencing them', async () => {
    const vm = await newVm(false);
    const guest = await Guest.of(await driver.grantAccess(request(vm)));
    const said = await guest.as('ceph', 'log', 'last', '1000', 'debug', 'audit');
    const ofControllers = said.split('\n').filter((line) => line.includes(`entity='client.${ceph.user}'`));
    const instances = new Set(
      ofControllers.flatMap((line) => /from='\S+ (?:v\d:)?(\S+:0\/\d+)'/.exec(line)?.[1] ?? []),
    );
    expect(instances.size).toBeGreaterThan(0);
    for (const addr of instances) {
      expect(await guest.command({ prefix: 'osd blocklist', blocklistop: 'add', addr, expire: 600.5 })).toBe(0);
    }
    // With the same child: nothing had to be connected anew.
    const pid = driver.childPid();
    const another = await newVm(true);
    await driver.grantAccess(request(another, { imageId: image }));
    await driver.deleteVolume(another.volumeId);
    expect(driver.childPid()).toBe(pid);
  });

  test('takes the lock over from a start that was killed, with the identity of the next', async () => {
    const vm = await newVm(false);
    const first = await Guest.of(await driver.grantAccess(request(vm)));
    const args = ['--pdeathsig', 'KILL', 'qemu-io', '-f', 'raw', first.disk(vm.name)];
    const child = spawn('setpriv', args, { stdio: ['pipe', 'pipe', 'ignore'] });
    let output = '';
    child.stdout.on('data', (text: Buffer) => {
      output += text.toString();
    });
    child.stdin.write('write -P 0x11 0 4k\n');
    await vi.waitFor(() => expect(output).toContain('wrote 4096'), { timeout: 30_000 });
    child.kill('SIGKILL');
    const next = await Guest.of(await driver.grantAccess(request(vm, {}, 2n)));
    expect(await next.io(vm.name, 'read -P 0x11 0 4k', 'write -P 0x22 0 4k', 'flush')).not.toMatch(
      /FAILED|failed|error/i,
    );
    expect(await ceph.ceph('osd', 'blocklist', 'ls')).toMatch(/127\.0\.0\.1:0\/[1-9]/);
  });

  test('is the same for the same start, new with the next, and worth nothing once it is revoked', async () => {
    const vm = await newVm(false);
    const [once, again, next] = [
      await driver.grantAccess(request(vm)),
      await driver.grantAccess(request(vm)),
      await driver.grantAccess(request(vm, {}, 2n)),
    ];
    expect(again).toEqual(once);
    expect(Buffer.from(next?.key ?? []).equals(Buffer.from(once?.key ?? []))).toBe(false);
    await driver.revokeAccess(vm.vmId, [1n as Epoch, 3n as Epoch]);
    expect(await (await Guest.of(once)).io(vm.name, 'read 0 4k')).toMatch(/FAILED/);
    expect(await (await Guest.of(next)).io(vm.name, 'read 0 4k')).toMatch(/^read/);
  });

  test('follows a volume that was made anew within one start', async () => {
    const vm = await newVm(false);
    const before = await driver.grantAccess(request(vm));
    await driver.deleteVolume(vm.volumeId);
    await driver.createVolume({ volumeId: vm.volumeId, sizeBytes: SIZE });
    const after = await driver.grantAccess(request(vm));
    expect(after).toEqual(before);
    expect(await (await Guest.of(after)).io(vm.name, 'write 0 4k')).toMatch(/^wrote/);
  });

  test('does not keep a start waiting whose disk is gone: QEMU tells what it misses', async () => {
    const vm = await newVm(false);
    await driver.deleteVolume(vm.volumeId);
    const guest = await Guest.of(await driver.grantAccess(request(vm)));
    expect(await guest.io(vm.name, 'read 0 4k')).toMatch(/No such file or directory/);
  });

  test('costs a start some tens of milliseconds', async () => {
    const vm = await newVm(true);
    const startedAtMs = performance.now();
    await driver.grantAccess(request(vm, { imageId: image }));
    // Measured: 25 ms on a quiet machine. The bound is for one where nine others work.
    expect(performance.now() - startedAtMs).toBeLessThan(3_000);
  });
});

describe('the key of the controllers', () => {
  const mine = (command: object) => commandAs(ceph.user, ceph.keyring, command);
  const entity = accessEntity(systemRandom.uuid() as VmId, 1n as Epoch);
  const capsWith = (changes: Readonly<Record<string, string>>) => {
    const caps = accessCaps('busbar', [{ name: 'volume.x', id: 'ab12', parentId: null }]);
    return caps.map((cap, index) => (index % 2 === 1 ? (changes[caps[index - 1] ?? ''] ?? cap) : cap));
  };

  test('makes identities for VMs, and none that may do more', async () => {
    expect(await mine({ prefix: 'auth get-or-create', entity, caps: capsWith({}) })).toBe(0);
    const more: readonly Record<string, string>[] = [
      { mon: 'allow *' },
      { mon: 'profile rbd' },
      { mgr: 'allow *' },
      { mds: 'allow *' },
      { osd: 'allow *' },
      { osd: 'allow rwx pool=busbar' },
      { osd: 'allow rwx pool=other object_prefix rbd_data.1' },
      { osd: 'allow r pool=busbar object_prefix rbd_data.1, allow *' },
      { osd: 'profile rbd' },
    ];
    for (const changes of more) {
      for (const prefix of ['auth get-or-create', 'auth caps']) {
        expect([prefix, changes, await mine({ prefix, entity, caps: capsWith(changes) })]).toEqual([
          prefix,
          changes,
          13,
        ]);
      }
    }
    // A word left out is no smaller right.
    expect(await mine({ prefix: 'auth caps', entity, caps: capsWith({}).slice(0, 4) })).toBe(13);
  });

  test('touches no other identity', async () => {
    for (const command of [
      { prefix: 'auth get-or-create', entity: 'client.other', caps: capsWith({}) },
      { prefix: 'auth caps', entity: 'client.admin', caps: capsWith({}) },
      { prefix: 'auth rm', entity: 'client.admin' },
      { prefix: 'auth get', entity },
      { prefix: 'auth ls' },
    ]) {
      expect([command.prefix, await mine(command)]).toEqual([command.prefix, 13]);
    }
  });
});
