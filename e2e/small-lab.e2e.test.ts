// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { busbar as busbarOf, type CommandResult } from '@busbar/deploy/demo/busbar';
import { hostExec, labDown, labUp, listLabs, openLab, status } from '@busbar/deploy/lab/lab';
import { run } from '@busbar/deploy/lab/run';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { busbar, eventually, guestCounter, LAB } from './lab.ts';

/**
 * Goal: the smallest cluster that survives a host, two hosts and a witness with disks in a shared directory, stands beside
 * another lab without either noticing; and whatever state a lab is left in, the next command clears it away.
 */
const SMALL = 'test-small';
const SIZE = { name: SMALL, hosts: 2, witnesses: 1, ceph: false } as const;
const VM = 'small-1';
const LAB_COMMAND = createRequire(import.meta.url).resolve('@busbar/deploy/lab/main');

const small = (args: readonly string[], input?: string): Promise<CommandResult> =>
  busbarOf(SMALL, args, input === undefined ? {} : { input });

async function ok(args: readonly string[], input?: string): Promise<string> {
  const result = await small(args, input);
  if (result.code !== 0) throw new Error(`busbar ${args.join(' ')} ended with ${result.code}:\n${result.stderr}`);
  return result.stdout;
}
const get = async <T>(args: readonly string[]): Promise<T> => JSON.parse(await ok([...args, '-o', 'json'])) as T;

const yaml = (name: string, more: string) => `apiVersion: busbar.v1
kind: Vm
name: ${name}
spec:
  cpu: {vcpus: 1}
  memoryBytes: 128MiB
${more.replace(/^/gm, '  ')}
`;

interface Traces {
  readonly processes: number;
  readonly links: readonly string[];
  readonly mounts: readonly string[];
  readonly cgroups: readonly string[];
  readonly registered: boolean;
}
const NOTHING: Traces = { processes: 0, links: [], mounts: [], cgroups: [], registered: false };

/** What the machine holds of the small lab, asked of the kernel and not of the lab's own tools. */
async function traces(index: number): Promise<Traces> {
  const cgroups: string[] = [];
  for (const controller of await readdir('/sys/fs/cgroup'))
    if ((await readdir(`/sys/fs/cgroup/${controller}/busbar-lab`).catch((): string[] => [])).includes(SMALL))
      cgroups.push(controller);
  const commands = await Promise.all(
    (await readdir('/proc'))
      .filter((name) => /^\d+$/.test(name))
      .map((pid) => readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '')),
  );
  const { stdout } = await run(['ip', '-brief', 'link']);
  return {
    processes: commands.filter((text) => text.includes(`/busbar-lab/${SMALL}`)).length,
    links: stdout.split('\n').flatMap((line) => line.match(new RegExp(`^bb${index}[a-z][^ @]*`))?.[0] ?? []),
    mounts: (await readFile('/proc/mounts', 'utf8')).split('\n').filter((line) => line.includes(`busbar-lab/${SMALL}`)),
    cgroups,
    registered: (await listLabs()).some((lab) => lab.name === SMALL),
  };
}

/** What a neighbour could break: its processes, its power, its quorums. */
async function shared() {
  const now = await status(LAB);
  return {
    hosts: now.hosts.map(({ name, power, bootId, services }) => ({ name, power, bootId, services })),
    etcd: now.etcd.healthy,
    osdsUp: now.ceph?.osdsUp,
  };
}

let before: Awaited<ReturnType<typeof shared>>;
let index: number;
beforeAll(async () => {
  await labDown(SMALL);
  before = await shared();
  index = (await labUp(SIZE)).spec.index;
});
afterAll(async () => {
  await labDown(SMALL);
});

describe('two hosts and a witness, without Ceph', () => {
  it('are a cluster whose witness votes and is ready', async () => {
    const { hosts } = await get<{ hosts: { meta: { name: string }; status: { state: string; role: string } }[] }>([
      'host',
      'list',
    ]);
    expect(hosts.map(({ meta, status: is }) => [meta.name, is.role, is.state])).toEqual([
      ['host1', 'HOST_ROLE_HYPERVISOR', 'HOST_STATE_READY'],
      ['host2', 'HOST_ROLE_HYPERVISOR', 'HOST_STATE_READY'],
      ['witness1', 'HOST_ROLE_WITNESS', 'HOST_STATE_READY'],
    ]);
    expect(await ok(['host', 'list'])).toMatch(/^witness1 +ready +witness /m);
    const now = await status(SMALL);
    expect([...now.etcd.healthy].toSorted()).toEqual(['host1', 'host2', 'witness1']);
    expect(Object.keys(now.hosts.find(({ name }) => name === 'witness1')?.services ?? {})).not.toContain('libvirtd');
  });

  it('give the witness no VM, not even one that asks for it', async () => {
    const refused = await small(
      ['apply', '-f', '-'],
      yaml('wants-1', 'runPolicy: running\nplacement: {pinnedHost: witness1}'),
    );
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/witness/);
    const names = ['even-1', 'even-2', 'even-3', 'even-4'];
    await ok(['apply', '-f', '-'], names.map((name) => yaml(name, 'runPolicy: running')).join('---\n'));
    const { vms } = await get<{ vms: { status: { host: string; phase: string } }[] }>(['vm', 'list']);
    expect(vms.map((vm) => vm.status.phase)).toEqual(names.map(() => 'VM_PHASE_RUNNING'));
    expect(new Set(vms.map((vm) => vm.status.host))).toEqual(new Set(['host1', 'host2']));
    await Promise.all(names.map((name) => ok(['vm', 'delete', name, '--force'])));
  });

  it('run a VM with disks in the shared directory, which boots and counts', async () => {
    const address = `10.78.${index}.31`;
    await ok(['image', 'import', 'busbar-guest', inject('guestImagePath')]);
    await ok(['network', 'create', 'plant', '--bridge', 'br-vm']);
    await ok(
      ['apply', '-f', '-'],
      yaml(
        VM,
        `runPolicy: running
disks:
  - {name: boot, image: busbar-guest}
  - {name: data, sizeBytes: 16MiB}
nics: [{name: lan, network: plant}]
cloudInit:
  networkConfig: |
    version: 2
    ethernets:
      eth0:
        addresses: [${address}/24]`,
      ),
    );
    const first = await eventually('the guest to answer', 90_000, () => guestCounter(address));
    await eventually('the counter to rise', 30_000, async () =>
      ((await guestCounter(address))?.counter ?? 0) > first.counter + 3 ? true : null,
    );
    const { status: vm } = await get<{ status: { host: string } }>(['vm', 'get', VM]);
    const xml = (await hostExec(SMALL, vm.host, ['virsh', 'dumpxml', VM])).stdout;
    expect(xml).toContain('/var/lib/busbar/volumes/');
  });
});

describe('two labs on one machine', () => {
  it('have hosts of the same names and do not disturb each other', async () => {
    expect((await busbar(['vm', 'get', VM])).code).toBe(3);
    expect(await shared()).toEqual(before);
    const [ours, theirs] = [await openLab(SMALL), await openLab(LAB)];
    const ping = (address: string) =>
      hostExec(SMALL, 'host1', ['ping', '-c', '1', '-W', '1', address], { mayFail: true });
    expect((await ping(ours.hosts[1]?.management ?? '')).code).toBe(0);
    expect((await ping(theirs.hosts[1]?.management ?? '')).code).not.toBe(0);
  });

  it('admit nobody of the other', async () => {
    const theirs = await openLab(LAB);
    const endpoint = `${theirs.voters[0]?.management}:7800`;
    const refused = await small(['--endpoint', endpoint, 'host', 'list', '--timeout', '10s']);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/certificate|TLS/i);
  });
});

describe('a lab that is half dead', () => {
  /** One host's processes are gone, and the bridges that also the living ones are plugged into. */
  async function halfKill(): Promise<void> {
    const pids = (await readFile(`/sys/fs/cgroup/freezer/busbar-lab/${SMALL}/host1/cgroup.procs`, 'utf8')).trim();
    // The first of them takes others with it.
    await run(['kill', '-9', ...pids.split('\n')], { mayFail: true });
    for (const letter of ['m', 'v']) await run(['ip', 'link', 'delete', `bb${index}${letter}`]);
  }

  it('is made whole by up', async () => {
    const { hosts } = await status(SMALL);
    await halfKill();
    await labUp(SIZE);
    await eventually('every host to be ready', 60_000, async () =>
      [...(await ok(['host', 'list'])).matchAll(/^\w+ +ready /gm)].length === 3 ? true : null,
    );
    const bootIds = new Map((await status(SMALL)).hosts.map(({ name, bootId }) => [name, bootId]));
    for (const { name, bootId } of hosts)
      if (name === 'host1') expect(bootIds.get(name)).not.toBe(bootId);
      else expect(bootIds.get(name)).toBe(bootId);
  });

  it('is cleared away by down, with nothing left of it', async () => {
    await halfKill();
    expect(await labDown(SMALL)).toBe(true);
    expect(await traces(index)).toEqual(NOTHING);
    expect(await shared()).toEqual(before);
  });

  it('of an "up" that was killed with the lock in its hands is finished by the next "up"', async () => {
    const args = [LAB_COMMAND, 'up', '--name', SMALL, '--hosts', '2', '--witnesses', '1', '--no-ceph'];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const ended = once(child, 'exit');
    for await (const line of createInterface({ input: child.stderr })) if (line.includes('hosts are on')) break;
    child.kill('SIGKILL');
    await ended;
    index = (await labUp(SIZE)).spec.index;
    expect(await ok(['host', 'list'])).toMatch(/^witness1 +ready/m);
    await labDown(SMALL);
    expect(await traces(index)).toEqual(NOTHING);
    expect(await shared()).toEqual(before);
  });
});
