// SPDX-License-Identifier: Apache-2.0
import {
  AdoptClusterRequest,
  type AdoptClusterResponse,
  AdoptionAction,
  GetClusterRequest,
  type GetClusterResponse,
} from '@busbar/proto/gen/busbar/v1/cluster';
import { UpdateHostRequest } from '@busbar/proto/gen/busbar/v1/host';
import {
  CreateVmRequest,
  type DeleteVmResponse,
  GetVmRequest,
  type GetVmResponse,
  RunPolicy,
  VmPhase,
} from '@busbar/proto/gen/busbar/v1/vm';
import { describe, expect, it } from 'vitest';
import { ask, ended } from './sagas.ts';
import { World } from './world.ts';

/**
 * Goal: a store that went back in time starts nothing and destroys nothing, whoever is silent or hung, and adoption takes over
 * what really runs. Method: a whole cluster on virtual time; etcd is restored from a backup beneath it. The backup is
 * restored with the cluster id that the store had (a forgotten new token), unless a test says otherwise.
 */
const GIB = 1024n ** 3n;
const HOSTS = 4;
const flags = { validateOnly: false, requestId: '' };
const SEEDS = [1, 2, 3, 4, 5, 6];
const ANOTHER_ID = 'beef';

async function newWorld(seed: number): Promise<World> {
  const world = new World({ seed, hosts: HOSTS });
  await readyAgain(world);
  return world;
}

const table = <K extends 'vm' | 'vm-status' | 'host-status' | 'store'>(world: World, kind: K) =>
  world.controller(world.leaderName() ?? '').view.tables[kind];

async function readyAgain(world: World, count = HOSTS): Promise<void> {
  const ready = () =>
    world.leaderName() !== null &&
    table(world, 'host-status')
      .sorted()
      .filter(({ record }) => record.state === 'HOST_STATE_READY').length >= count;
  await world.until(ready, 60_000, 'hosts are ready');
}

async function create(world: World, name: string): Promise<string> {
  const spec = { cpu: { vcpus: 1 }, memoryBytes: GIB, disks: [{ name: 'd', sizeBytes: GIB }] };
  const request = CreateVmRequest.fromPartial({ name, spec });
  const made = await ask<{ vm?: { meta?: { id: string } } }>(world, 'VmService', 'createVm', request);
  await ended(world);
  return made.vm?.meta?.id ?? '';
}

const closeHost = (world: World, host: string, unschedulable = true) =>
  ask(
    world,
    'HostService',
    'updateHost',
    UpdateHostRequest.fromPartial({ host, spec: { unschedulable }, updateMask: ['spec.unschedulable'] }),
  );

async function stop(world: World, vm: string): Promise<void> {
  await ask(world, 'VmService', 'stopVm', { vm, force: true, timeoutMs: 0, ...flags });
  await ended(world);
}

async function start(world: World, vm: string): Promise<void> {
  await ask(world, 'VmService', 'startVm', { vm, ...flags });
  await ended(world);
}

/** Stopped here, started elsewhere. */
async function move(world: World, vm: string, id: string): Promise<{ readonly from: string; readonly to: string }> {
  const [from = ''] = world.runningOn(id);
  await closeHost(world, from);
  await stop(world, vm);
  await start(world, vm);
  const [to = ''] = world.runningOn(id);
  await world.clock.advance(6_000);
  return { from, to };
}

const hostOf = (world: World, name: string) => {
  const found = world.hosts.find((host) => host.name === name);
  if (found === undefined) throw new Error(`no host ${name}`);
  return found;
};

/** One VM that moved after the backup, and the restored store. */
async function moved(
  seed: number,
  before: (world: World, where: { readonly from: string; readonly to: string }) => void = () => {},
  clusterId?: string,
) {
  const world = await newWorld(seed);
  const id = await create(world, 'v');
  await world.clock.advance(6_000);
  const backup = world.saveStore();
  const where = await move(world, 'v', id);
  before(world, where);
  await world.restoreStore(backup, clusterId);
  return { world, id, ...where };
}

/** The cluster is held, with its alarm; nothing starts, nothing ends, nobody writes twice meanwhile. */
async function staysAsItIs(world: World, id: string, where: readonly string[], ms = 40_000): Promise<void> {
  const endMs = world.clock.nowMs() + ms;
  while (world.clock.nowMs() < endMs) {
    await world.clock.advance(100);
    expect(world.runningOn(id)).toEqual(where);
    const writers = world.hosts.filter((host) => host.machine.canWrite(id as never)).map((host) => host.name);
    expect(writers.length).toBeLessThanOrEqual(1);
  }
}

async function behind(world: World): Promise<readonly string[]> {
  await world.until(() => world.leaderName() !== null, 30_000, 'a leader');
  const isMarked = () => table(world, 'store').get('history')?.record.behindSince !== undefined;
  await world.until(isMarked, 30_000, 'the store is seen to be behind');
  return table(world, 'store').get('history')?.record.signs ?? [];
}

async function alarms(world: World): Promise<readonly string[]> {
  const { cluster } = await ask<GetClusterResponse>(
    world,
    'ClusterService',
    'getCluster',
    GetClusterRequest.fromPartial({}),
  );
  return cluster?.alarms.map(({ code }) => code) ?? [];
}

const adopt = (world: World, request: Parameters<typeof AdoptClusterRequest.fromPartial>[0] = {}) =>
  ask<AdoptClusterResponse>(world, 'ClusterService', 'adoptCluster', AdoptClusterRequest.fromPartial(request));

/** The leader knows that the store is no longer behind. */
const settledAgain = (world: World) => {
  const isOver = () =>
    world.leaderName() !== null && table(world, 'store').get('history')?.record.behindSince === undefined;
  return world.until(isOver, 5_000, 'the store is not behind');
};

async function adopted(world: World, request: Parameters<typeof AdoptClusterRequest.fromPartial>[0] = {}) {
  const { plan } = await adopt(world, request);
  await ended(world);
  await settledAgain(world);
  return plan;
}

const statusOf = (world: World, id: string) => table(world, 'vm-status').get(id)?.record;

describe('a store restored from a backup', { timeout: 90_000 }, () => {
  it.each(SEEDS)('a VM that moved since is neither started beside itself nor ended (seed %i)', async (seed) => {
    const { world, id, from, to } = await moved(seed);
    await staysAsItIs(world, id, [to]);
    expect((await behind(world)).join()).toContain(`${to} runs VM "v" with epoch 2, the store has 1`);
    expect(await alarms(world)).toContain('STORE_BEHIND');
    const plan = await adopted(world);
    expect(plan?.vms).toMatchObject([
      {
        vm: { name: 'v' },
        recordedHost: from,
        recordedEpoch: 1n,
        found: [{ host: to, epoch: 2n }],
        action: AdoptionAction.TAKE_OVER,
      },
    ]);
    await staysAsItIs(world, id, [to]);
    expect(statusOf(world, id)).toMatchObject({ phase: VmPhase.RUNNING, host: to, epoch: 2n });
    expect(await alarms(world)).not.toContain('STORE_BEHIND');
    // It is managed again, and its next epoch is above all that any host remembers.
    await stop(world, 'v');
    expect(world.runningOn(id)).toEqual([]);
    await start(world, 'v');
    expect(world.runningOn(id)).toHaveLength(1);
    expect(statusOf(world, id)?.epoch).toBeGreaterThan(1_000_000n);
  });

  it.each(SEEDS)('with libvirtd hung where it runs, too (seed %i)', async (seed) => {
    const { world, id, to } = await moved(seed, (world, where) =>
      hostOf(world, where.to).machine.setHypervisor('hung'),
    );
    await staysAsItIs(world, id, [to]);
    await behind(world);
    await adopted(world);
    await staysAsItIs(world, id, [to], 30_000);
    hostOf(world, to).machine.setHypervisor('up');
    await staysAsItIs(world, id, [to], 30_000);
    expect(statusOf(world, id)).toMatchObject({ phase: VmPhase.RUNNING, host: to, epoch: 2n });
  });

  it.each([
    ['the former cluster id and a young store', undefined, 0, /knew the store at revision/],
    ['the former cluster id', undefined, 200, /its log has \d+ entries/],
    ['another cluster id', ANOTHER_ID, 0, /etcd is another cluster than before/],
  ])('with its host silent, and %s', async (_, clusterId, writes, sign) => {
    const world = await newWorld(7);
    for (let i = 0; i < writes; i++)
      world.truth.txn({ compare: [], writes: [{ kind: 'put', key: 'busbar/other', value: String(i) }] });
    const id = await create(world, 'v');
    await world.clock.advance(6_000);
    const backup = world.saveStore();
    const { to } = await move(world, 'v', id);
    world.killAgent(hostOf(world, to));
    await world.restoreStore(backup, clusterId);
    await staysAsItIs(world, id, [to]);
    expect((await behind(world)).join()).toMatch(sign);
    // Who does not know what that host runs adopts nothing.
    const { plan } = await adopt(world, { validateOnly: true });
    expect(plan?.obstacles).toMatchObject([{ reason: 'HOST_SILENT' }]);
    expect(plan?.obstacles[0]?.hint).toContain(`--without ${to}`);
    await expect(adopt(world)).rejects.toMatchObject({ reason: 'ADOPTION_BLOCKED' });
    world.startAgent(hostOf(world, to));
    await readyAgain(world);
    await adopted(world);
    await staysAsItIs(world, id, [to]);
  });

  it('beneath controllers that were not stopped', async () => {
    const world = await newWorld(3);
    const id = await create(world, 'v');
    await world.clock.advance(6_000);
    const backup = world.saveStore();
    const { to } = await move(world, 'v', id);
    world.truth.restore(backup, ANOTHER_ID);
    await staysAsItIs(world, id, [to]);
    await behind(world);
    await adopted(world);
    await staysAsItIs(world, id, [to]);
  });

  it('a VM that has ended everywhere is started once, after adoption, with an epoch above all', async () => {
    const { world, id, to } = await moved(5);
    await behind(world);
    // Ended after the backup, by itself, on a host that the restored store knows nothing of.
    hostOf(world, to).machine.powerOffGuest(id as never);
    await world.clock.advance(3_000);
    await staysAsItIs(world, id, []);
    const plan = await adopted(world);
    expect(plan?.vms).toMatchObject([{ found: [], action: AdoptionAction.START }]);
    await world.until(() => statusOf(world, id)?.phase === VmPhase.RUNNING, 60_000, 'it runs again');
    expect(world.runningOn(id)).toHaveLength(1);
    expect(statusOf(world, id)?.epoch).toBeGreaterThan(1_000_000n);
  });

  it('refuses meanwhile what would start, move or remove something, and says why', async () => {
    const { world, id, to } = await moved(6);
    await behind(world);
    // Until every controller has seen the mark.
    await world.clock.advance(100);
    const refused = { reason: 'STORE_BEHIND', hint: expect.stringContaining('busbar cluster adopt --plan') as string };
    const spec = { cpu: { vcpus: 1 }, memoryBytes: GIB, runPolicy: RunPolicy.RUNNING };
    const request = CreateVmRequest.fromPartial({ name: 'w', spec });
    await expect(ask(world, 'VmService', 'createVm', request)).rejects.toMatchObject(refused);
    await expect(ask(world, 'VmService', 'startVm', { vm: 'v', ...flags })).rejects.toMatchObject(refused);
    const deletion = { vm: 'v', revision: 0n, force: true, ...flags };
    await expect(ask(world, 'VmService', 'deleteVm', deletion)).rejects.toMatchObject(refused);
    const explained = await ask<{ held: string }>(world, 'VmService', 'explainPlacement', { vm: 'v' });
    expect(explained.held).toContain('STORE_BEHIND: the cluster store went back in time');
    // Reading and what neither starts nor ends anything go on.
    const { vm } = await ask<GetVmResponse>(world, 'VmService', 'getVm', GetVmRequest.fromPartial({ vm: 'v' }));
    expect(vm?.meta?.id).toBe(id);
    await closeHost(world, to, false);
    expect(world.runningOn(id)).toEqual([to]);
  });

  it('a VM made since runs on without a record, and nothing is held because of it after adoption', async () => {
    const world = await newWorld(8);
    await create(world, 'v');
    await world.clock.advance(6_000);
    const backup = world.saveStore();
    const id = await create(world, 'later');
    const [host = ''] = world.runningOn(id);
    await world.restoreStore(backup);
    await staysAsItIs(world, id, [host]);
    expect((await behind(world)).join()).toContain(`${host} runs VM ${id}, which the store does not know`);
    const plan = await adopted(world);
    expect(plan?.vms).toContainEqual(
      expect.objectContaining({ action: AdoptionAction.LEAVE_ALONE, found: [{ host, epoch: 1n }] }),
    );
    await staysAsItIs(world, id, [host]);
    expect(await alarms(world)).toEqual(['VM_WITHOUT_RECORD']);
    expect(world.runningOn(await create(world, 'after'))).toHaveLength(1);
  });

  it('a VM deleted since is not started without its disks, and can be deleted again', async () => {
    const world = await newWorld(9);
    const id = await create(world, 'v');
    await world.clock.advance(6_000);
    const backup = world.saveStore();
    await ask(world, 'VmService', 'deleteVm', { vm: 'v', revision: 0n, force: true, ...flags });
    await ended(world);
    await world.restoreStore(backup);
    await staysAsItIs(world, id, []);
    await behind(world);
    const plan = await adopted(world);
    expect(plan?.vms).toMatchObject([{ action: AdoptionAction.STAY_OFF }]);
    expect(plan?.vms[0]?.message).toContain('the pool does not have its disks d');
    await staysAsItIs(world, id, []);
    await ask(world, 'VmService', 'deleteVm', { vm: 'v', revision: 0n, force: true, ...flags });
    await ended(world);
    await world.until(() => table(world, 'vm').get(id) === undefined, 1_000, 'it is forgotten');
  });

  it.each([
    ['and was given up', true],
    ['and was carried out', false],
  ])('a deletion that was under way in the backup %s is called off', async (_, givenUp) => {
    const world = await newWorld(10);
    const id = await create(world, 'v');
    await world.clock.advance(6_000);
    const deletion = { vm: 'v', revision: 0n, force: false, ...flags };
    const { operation } = await ask<DeleteVmResponse>(world, 'VmService', 'deleteVm', deletion);
    const backup = world.saveStore();
    const cancelling = { operation: operation?.id ?? '', validateOnly: false, requestId: '' };
    if (givenUp) await ask(world, 'OperationService', 'cancelOperation', cancelling);
    await ended(world);
    // A guest that was told to shut down does so, and is started again.
    await world.clock.advance(20_000);
    const ran = world.runningOn(id);
    await world.restoreStore(backup, ANOTHER_ID);
    await behind(world);
    await staysAsItIs(world, id, ran, 30_000);
    await adopted(world);
    const isKept = () => table(world, 'vm').get(id)?.record.meta?.deleting === false;
    await world.until(isKept, 1_000, 'its deletion is called off');
    await staysAsItIs(world, id, ran, 30_000);
  });

  it('a VM that runs on two hosts stays where the operator says, and is destroyed on the other', async () => {
    const { world, id, from, to } = await moved(13);
    await behind(world);
    // What the restored store did before this was built, by hand: epoch 2 beside epoch 2.
    const [domain] = hostOf(world, to).machine.domains.filter(({ vmId }) => vmId === id);
    if (domain === undefined) throw new Error('it does not run');
    const { vmId, name, epoch, spec } = domain;
    await world.settled(
      hostOf(world, from).machine.start({ vmId, name, epoch, domain: spec }),
      10_000,
      'a second copy',
    );
    await world.clock.advance(6_000);
    await expect(adopt(world)).rejects.toMatchObject({
      reason: 'ADOPTION_BLOCKED',
      message: expect.stringMatching(/VM "v" runs on host\d \(epoch 2\) and host\d \(epoch 2\)/) as string,
    });
    expect(world.runningOn(id)).toHaveLength(2);
    await adopted(world, { keep: [{ vm: 'v', host: to }] });
    await world.until(() => world.runningOn(id).length === 1, 10_000, 'one is destroyed');
    await staysAsItIs(world, id, [to], 20_000);
    expect(statusOf(world, id)).toMatchObject({ phase: VmPhase.RUNNING, host: to, epoch: 2n });
  });

  it('adopting twice, and with nothing to adopt, does nothing more', async () => {
    const { world, id, to } = await moved(4);
    await behind(world);
    await adopted(world, { requestId: 'once' });
    const before = statusOf(world, id);
    const again = await adopt(world, { requestId: 'once' });
    const anew = await adopt(world);
    expect([again.operation, anew.operation]).toEqual([undefined, undefined]);
    expect(anew.plan?.behind).toBe(false);
    await staysAsItIs(world, id, [to], 5_000);
    expect(statusOf(world, id)).toEqual(before);
  });

  it.each([0, 2, 5, 10, 20, 40, 80])('its leader killed %i ms into the adoption', async (ms) => {
    const { world, id, to } = await moved(11);
    await behind(world);
    await adopt(world);
    await world.clock.advance(ms);
    world.killController(world.leaderName() ?? '');
    await staysAsItIs(world, id, [to], 20_000);
    await ended(world);
    await settledAgain(world);
    expect(statusOf(world, id)).toMatchObject({ phase: VmPhase.RUNNING, host: to, epoch: 2n });
  });

  it('without a host that is lost: its VM starts elsewhere, and its own copy is destroyed if it comes back', async () => {
    const { world, id, to } = await moved(12, (world, where) => world.killAgent(hostOf(world, where.to)));
    await behind(world);
    const plan = await adopted(world, { withoutHosts: [to] });
    expect(plan?.vms).toMatchObject([{ found: [], action: AdoptionAction.START }]);
    const others = () => world.runningOn(id).filter((host) => host !== to);
    await world.until(() => others().length === 1, 60_000, 'it runs elsewhere');
    // The promise was broken.
    world.startAgent(hostOf(world, to));
    await world.until(() => !world.runningOn(id).includes(to), 30_000, 'the lost copy is destroyed');
    await world.clock.advance(30_000);
    expect(world.runningOn(id)).toEqual(others());
    expect(await alarms(world)).toEqual([]);
  });
});
