// SPDX-License-Identifier: Apache-2.0
import { errorChain } from '@busbar/core/errors';
import { HostState } from '@busbar/proto/gen/busbar/v1/host';
import {
  CpuPolicy,
  CreateVmRequest,
  type CreateVmResponse,
  type GetVmResponse,
  IsolationPolicy,
  RunPolicy,
  type Vm,
  VmPhase,
} from '@busbar/proto/gen/busbar/v1/vm';
import { describe, expect, it } from 'vitest';
import { World } from './world.ts';

/**
 * Goal: no CPU is given to two VMs, whoever leads and whenever it dies; and what the API tells is what the machines have.
 * Method: hosts of two NUMA nodes with isolated CPUs; realtime and dedicated VMs asked of all controllers at once, more than
 * there is room for, while the leader dies at a moment drawn from the seed.
 */
const TOPOLOGY = { numaNodes: 2, coresPerNumaNode: 6, isolatedCpus: [3, 4, 5, 9, 10, 11] };
const GIB = 1024n ** 3n;

async function ready(seed: number): Promise<{ world: World; leader: string }> {
  const world = new World({ seed, topology: TOPOLOGY });
  await world.until(() => world.leaderName() !== null, 20_000, 'a leader');
  const leader = world.leaderName() ?? '';
  const hosts = () => world.controller(leader).view.tables['host-status'].sorted();
  const isReady = ({ record }: { readonly record: { readonly state: HostState } }) => record.state === HostState.READY;
  await world.until(() => hosts().filter(isReady).length === 3, 20_000, 'three hosts ready');
  return { world, leader };
}

const requestOf = (index: number) => {
  const policy = index % 3 === 0 ? CpuPolicy.DEDICATED : CpuPolicy.REALTIME;
  return CreateVmRequest.fromPartial({
    name: `vm-${index}`,
    requestId: `r${index}`,
    spec: {
      runPolicy: RunPolicy.RUNNING,
      isolationPolicy: IsolationPolicy.KEEP_RUNNING,
      cpu: { vcpus: 2, policy, ...(policy === CpuPolicy.REALTIME ? { ioThreads: 1 } : {}) },
      memoryBytes: GIB,
    },
  });
};

async function vmsOf(world: World, controller: string): Promise<readonly Vm[]> {
  const list = world.call<{ vms: Vm[] }>(controller, 'VmService', 'listVms', { pageSize: 0, pageToken: '', host: '' });
  return (await world.settled(list, 5_000, 'list')).vms;
}

/** Every CPU that a running domain has for itself, on each host, by the machines and not by the records. */
function cpusInUse(world: World): ReadonlyMap<string, readonly number[]> {
  return new Map(
    world.hosts.map(({ name, machine }) => [
      name,
      machine.domains
        .filter(({ state }) => state !== 'ended')
        .flatMap(({ spec }) => {
          const { cells = [], emulatorCpus = [], ioThreadCpus = [] } = spec.placement ?? {};
          return [...cells.flatMap(({ cpus }) => cpus), ...emulatorCpus, ...ioThreadCpus];
        }),
    ]),
  );
}

describe('placements while the leader dies', () => {
  it.each(Array.from({ length: 20 }, (_, i) => [i + 1, i * 60]))(
    'seed %i, killed after %i ms: no CPU is given twice',
    async (seed, killAfterMs) => {
      const { world, leader } = await ready(seed);
      const controllers = world.liveControllers();
      const answers = Array.from({ length: 16 }, (_, i) =>
        world
          .call<CreateVmResponse>(controllers[i % controllers.length] ?? '', 'VmService', 'createVm', requestOf(i))
          .then(
            () => 'accepted',
            (error: unknown) => errorChain(error),
          ),
      );
      await world.clock.advance(killAfterMs);
      world.killController(leader);
      const survivor = world.liveControllers()[0] ?? '';
      await world.settled(Promise.all(answers), 60_000, 'answers');
      const vms = () => world.controller(survivor).view.tables['vm-status'].sorted();
      const settled = () =>
        vms().every(({ record }) => record.phase === VmPhase.RUNNING || record.phase === VmPhase.PENDING);
      await world.until(() => vms().length > 0 && settled(), 120_000, 'every VM to run or to wait');
      for (const [host, cpus] of cpusInUse(world)) {
        expect([host, cpus.length]).toEqual([host, new Set(cpus).size]);
        expect(cpus.length).toBeGreaterThan(0);
      }
      for (const { meta, spec, status } of await vmsOf(world, survivor)) {
        if (status?.phase !== VmPhase.RUNNING) {
          expect(status).toMatchObject({ host: '', placement: undefined });
          expect(status?.message).toMatch(/needs \d+ .*CPUs.*, \d+ free/);
          continue;
        }
        const host = world.hosts.find(({ name }) => name === status.host);
        expect(host?.machine.domain(meta?.id as never)?.spec.placement).toEqual(status.placement);
        const isRealtime = spec?.cpu?.policy === CpuPolicy.REALTIME;
        for (const cpu of status.placement?.cells.flatMap(({ cpus }) => cpus) ?? [])
          expect([cpu, TOPOLOGY.isolatedCpus.includes(cpu)]).toEqual([cpu, isRealtime]);
        expect(status.observedPlacement?.vcpuCpus).toEqual(
          status.placement?.cells.flatMap(({ cpus }) => cpus.map(String)),
        );
        expect(status.placementDrift).toBe('');
      }
    },
  );
});

it('a knob that somebody turned is a fault, until it is turned back', async () => {
  const { world, leader } = await ready(3);
  const created = await world.settled(
    world.call<CreateVmResponse>(leader, 'VmService', 'createVm', requestOf(1)),
    5_000,
    'created',
  );
  const id = created.vm?.meta?.id ?? '';
  const status = () => world.controller(leader).view.tables['vm-status'].get(id)?.record;
  await world.until(() => status()?.phase === VmPhase.RUNNING, 60_000, 'it runs');
  const reasons = () =>
    world
      .controller(leader)
      .view.tables.event.oldestFirst()
      .map(({ record }) => record.reason);
  const { machine } = world.hosts.find(({ name }) => name === status()?.host) as World['hosts'][number];
  machine.faults.tampered = new Map([[id, { vcpuCpus: ['0-11', '0-11'] }]]);
  await world.until(() => status()?.placementDrift !== '', 30_000, 'the drift is seen');
  const get = world.call<GetVmResponse>(leader, 'VmService', 'getVm', { vm: 'vm-1' });
  const { vm } = await world.settled(get, 5_000, 'get');
  expect(vm?.status?.placementDrift).toMatch(/^vCPU 0 on CPUs 0-11 instead of \d+; vCPU 1 /);
  expect(vm?.status?.observedPlacement?.vcpuCpus).toEqual(['0-11', '0-11']);
  expect(vm?.status?.phase).toBe(VmPhase.RUNNING);
  expect(reasons()).toContain('VM_PLACEMENT_DRIFT');
  machine.faults.tampered = new Map();
  await world.until(() => status()?.placementDrift === '', 30_000, 'the drift is gone');
  expect(reasons()).toContain('VM_PLACEMENT_RESTORED');
});
