// SPDX-License-Identifier: Apache-2.0
/**
 * Goal: of two QEMUs on one host, the first one's user reaches nothing of the second, and libvirt keeps no key. Method: real libvirt
 * and QEMU; programs that run as the first one's user.
 */
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { Firmware } from '@busbar/proto/gen/busbar/v1/vm';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { DEFAULT_UID_POOL, isInPool } from '../config/uid-pool.ts';
import { bootSectorDisk } from '../driver/boot-sector.fixture.ts';
import { fileDisk, rbdDisk, startRequest } from '../driver/domain.fixture.ts';
import { LibvirtHostDriver } from './driver.ts';
import { PrivateLibvirtd } from './private-libvirtd.fixture.ts';

const cloudInit = {
  instanceId: 'i',
  hostname: 'h',
  userData: '#cloud-config\npassword: of-its-guest\n',
  networkConfig: '',
};
let libvirtd: PrivateLibvirtd;
let driver: LibvirtHostDriver;
let guests: {
  readonly uid: number;
  readonly pid: number;
  readonly vmId: string;
  readonly name: string;
  readonly disk: string;
}[];

function newDriver(): LibvirtHostDriver {
  const { dir, uri, qemuLogDir, netNamespace } = libvirtd;
  const rbd = { monitors: ['127.0.0.1:1'], shared: null };
  const made = new LibvirtHostDriver(
    {
      uri,
      stateDir: join(dir, 'state'),
      runDir: join(dir, 'r'),
      logDir: join(dir, 'serial'),
      rbd,
      uidPool: DEFAULT_UID_POOL,
    },
    { clock: systemClock, logger: silentLogger, qemuLogDir, netNamespace, qemuStateDir: join(dir, 'lib/qemu') },
  );
  made.start();
  return made;
}
const healthy = (made: LibvirtHostDriver) =>
  vi.waitFor(() => expect(made.health().healthy).toBe(true), { timeout: 60_000 });

beforeAll(async () => {
  libvirtd = await PrivateLibvirtd.create();
  driver = newDriver();
  await healthy(driver);
  guests = [];
  for (const n of [900, 901]) {
    const disk = join(libvirtd.dir, `guest-${n}.raw`);
    await writeFile(disk, bootSectorDisk(), { mode: 0o600 });
    const spec = { disks: [fileDisk(disk)], firmware: Firmware.UEFI, guestAgent: true, cloudInit };
    const request = startRequest(n, spec);
    await driver.startDomain(request);
    const pid = await libvirtd.qemuOf(request.vmId);
    guests.push({ pid, uid: (await idsOf(pid)).Uid[0] ?? 0, vmId: request.vmId, name: request.name, disk });
  }
});
afterAll(async () => {
  await driver?.close();
  await libvirtd?.destroy();
});

async function idsOf(pid: number) {
  const text = await readFile(`/proc/${pid}/status`, 'latin1');
  const field = (name: string) =>
    (new RegExp(`^${name}:(.*)$`, 'm').exec(text)?.[1] ?? '')
      .trim()
      .split(/\s+/)
      .filter((word) => word !== '')
      .map(Number);
  return { Uid: field('Uid'), Gid: field('Gid'), Groups: field('Groups') };
}
const [first, second] = [() => guests[0], () => guests[1]].map((of) => () => of() ?? expect.fail('did not start'));

/** What a shell says that runs as a guest's user, with the group that its QEMU has. */
async function as(uid: number, script: string): Promise<string> {
  const user = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
  return await libvirtd.exec('setpriv', ...user, 'sh', '-c', `{ ${script}; } 2>&1 || echo refused`);
}

describe('two QEMUs of one host', () => {
  test('are users and groups that nobody else is, and have no other groups', async () => {
    const seen = await Promise.all(guests.map(({ pid }) => idsOf(pid)));
    for (const { Uid, Gid, Groups } of seen) {
      expect(isInPool(DEFAULT_UID_POOL, Uid[0] ?? 0)).toBe(true);
      expect(new Set([...Uid, ...Gid, ...Groups])).toEqual(new Set([Uid[0]]));
    }
    expect(seen[0]?.Uid[0]).not.toBe(seen[1]?.Uid[0]);
  });

  test('reach their own files, and not those of the other', async () => {
    const [me, other] = [first?.(), second?.()];
    if (me === undefined || other === undefined) return expect.fail('did not start');
    const filesOf = (guest: typeof me) => [
      guest.disk,
      join(libvirtd.dir, 'state/seed', `${guest.vmId}.iso`),
      join(libvirtd.dir, 'state/nvram', `${guest.vmId}.fd`),
      ...['1', '2'].map((n) => `/var/lib/libvirt/qemu/domain-${n}-${guest.name}/master-key.aes`),
    ];
    for (const file of filesOf(me).slice(0, 3))
      expect([file, await as(me.uid, `head -c1 ${file} | wc -c`)]).toEqual([file, '1\n']);
    for (const file of filesOf(other)) {
      expect([file, await as(me.uid, `cat ${file} >/dev/null`)]).toEqual([file, expect.stringContaining('refused')]);
      expect([file, await as(me.uid, `true >> ${file}`)]).toEqual([file, expect.stringContaining('refused')]);
    }
  });

  test('reach no socket: of no console, monitor or guest agent, and not libvirt’s', async () => {
    const listening = (await libvirtd.exec('cat', '/proc/net/unix')).match(/ \S+$/gm)?.map((path) => path.trim()) ?? [];
    const sockets = [...new Set(listening)].filter((path) => path.startsWith('/'));
    for (const word of ['console', 'monitor.sock', 'guest_agent', 'libvirt-sock', 'virtlogd'])
      expect(sockets.filter((path) => path.includes(word))).not.toEqual([]);
    const node = process.execPath;
    const connect = (path: string) =>
      `${node} -e "require('net').connect(process.argv[1]).on('connect',()=>{console.log('reached');process.exit()}).on('error',()=>process.exit(1))" ${path}`;
    const me = first?.();
    const mine = sockets.filter((path) => me !== undefined && path.includes(me.name));
    for (const path of sockets.filter((one) => !mine.includes(one)))
      expect([path, await as(me?.uid ?? 0, connect(path))]).toEqual([path, expect.stringContaining('refused')]);
    // So it does connect.
    const agent = mine.find((path) => path.includes('guest_agent')) ?? '';
    expect(await as(me?.uid ?? 0, connect(agent))).toContain('reached');
  });

  test('reach no process: neither memory nor files nor environment, and end none', async () => {
    const [me, other] = [first?.(), second?.()];
    for (const what of ['mem', 'environ', 'maps', 'auxv'])
      expect([what, await as(me?.uid ?? 0, `cat < /proc/${other?.pid}/${what} >/dev/null`)]).toEqual([
        what,
        expect.stringContaining('refused'),
      ]);
    expect(await as(me?.uid ?? 0, `ls /proc/${other?.pid}/fd`)).toContain('refused');
    expect(await as(me?.uid ?? 0, `kill -0 ${other?.pid}`)).toContain('refused');
    expect(await as(me?.uid ?? 0, `kill -0 ${me?.pid}; echo may`)).toBe('may\n');
  });

  test('have consoles that the agent opens, also those of an agent that was restarted', async () => {
    const next = newDriver();
    await healthy(next);
    for (const { vmId } of guests) {
      const console_ = await next.openConsole(vmId as never, AbortSignal.timeout(30_000));
      console_.close();
    }
    await next.close();
    expect((await stat(join(libvirtd.dir, 'r/console'))).mode & 0o7777).toBe(0o700);
  });
});

describe('consoles that an older agent left open to all', () => {
  test('are closed to others, and still open for the agent', async () => {
    const { runDir, vmId } = { runDir: join(libvirtd.dir, 'r'), vmId: first?.()?.vmId ?? '' };
    await libvirtd.exec('mv', join(runDir, 'console', vmId), join(runDir, `${vmId}.console`));
    const next = newDriver();
    await healthy(next);
    const { mode, uid } = await stat(join(runDir, `${vmId}.console`));
    expect([mode & 0o777, uid]).toEqual([0o600, 0]);
    (await next.openConsole(vmId as never, AbortSignal.timeout(30_000))).close();
    await next.close();
    await libvirtd.exec('mv', join(runDir, `${vmId}.console`), join(runDir, 'console', vmId));
  });
});

describe('the key of a start', () => {
  const KEY = Buffer.concat([Buffer.from('010000000000000000001000', 'hex'), Buffer.alloc(16, 9)]);

  test('is with libvirt only while QEMU is being started, also when that fails', async () => {
    // Nobody answers at this monitor: the start fails by itself or is undone.
    const disks = [rbdDisk('pool', 'volume.x', { readOnly: false })];
    const diskAccess = { user: 'busbar-vm.x.1', key: KEY };
    const starting = driver.startDomain(startRequest(910, { disks, diskAccess }));
    const secrets = async () =>
      (await libvirtd.exec('virsh', '-c', libvirtd.uri, 'secret-list')).match(/^\s*[0-9a-f]{8}-/gm) ?? [];
    const ended = starting.catch((error: unknown) => error);
    await vi.waitFor(async () => expect(await secrets()).toHaveLength(1), { timeout: 30_000, interval: 20 });
    expect(await ended).toMatchObject({ reason: 'DOMAIN_START_FAILED' });
    expect(String(await ended)).not.toContain(KEY.toString('base64'));
    expect(await secrets()).toEqual([]);
    expect(await readdir(join(libvirtd.dir, 'etc/secrets')).catch(() => [])).toEqual([]);
  }, 120_000);

  test('that did not come is told with what to do, and nothing is started', async () => {
    const request = startRequest(911, { disks: [rbdDisk('pool', 'volume.x')] });
    await expect(driver.startDomain(request)).rejects.toThrow(/no key for the disks/);
    expect((await driver.listDomains()).map(({ vmId }) => vmId)).not.toContain(request.vmId);
  });
});
