// SPDX-License-Identifier: Apache-2.0

import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { CreateNetworkRequest } from '@busbar/proto/gen/busbar/v1/network';
import { type Operation, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { CreateVmRequest, type CreateVmResponse, type GetVmResponse, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { describe, expect, it } from 'vitest';
import { World } from './world.ts';

/**
 * Goal: a VM that is being created while the leader dies is created once, whenever the leader dies.
 * Method: three controllers and three agents on virtual time; the leader is killed at a moment drawn from the seed.
 */
async function createWhileLeaderDies(seed: number, killAfterMs: number): Promise<World> {
  const world = new World({ seed });
  await world.until(() => world.leaderName() !== null, 20_000, 'a leader');
  const leader = world.leaderName() ?? '';
  await world.until(() => readyHosts(world, leader) === 3, 20_000, 'three hosts ready');
  const survivor = world.liveControllers().find((name) => name !== leader) ?? '';
  await world.settled(
    world.call(
      survivor,
      'NetworkService',
      'createNetwork',
      CreateNetworkRequest.fromPartial({ name: 'plant', spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } }),
    ),
    5_000,
    'network created',
  );
  const request = CreateVmRequest.fromPartial({
    name: 'scada-1',
    requestId: 'one',
    spec: {
      cpu: { vcpus: 2 },
      memoryBytes: 1024n ** 3n,
      disks: [
        { name: 'boot', sizeBytes: 1024n ** 3n },
        { name: 'data', sizeBytes: 1024n ** 3n },
      ],
      nics: [{ name: 'lan', network: 'plant' }],
    },
  });
  const created = await world.settled(
    world.call<CreateVmResponse>(survivor, 'VmService', 'createVm', request),
    5_000,
    'create accepted',
  );
  await world.clock.advance(killAfterMs);
  world.killController(leader);
  const operationId = created.operation?.id ?? '';
  const operation = () =>
    world.controller(survivor).view.tables.operation.get(operationId)?.record.operation as Operation;
  await world.until(
    () => [OperationState.SUCCEEDED, OperationState.FAILED].includes(operation().state as never),
    60_000,
    'the operation to end',
  );
  expect(operation().error).toBeUndefined();
  // A repeat with the same request id gets the same VM.
  const again = await world.settled(
    world.call<CreateVmResponse>(survivor, 'VmService', 'createVm', request),
    5_000,
    'repeat',
  );
  expect(again.vm?.meta?.id).toBe(created.vm?.meta?.id);
  const { vm } = await world.settled(
    world.call<GetVmResponse>(survivor, 'VmService', 'getVm', { vm: 'scada-1' }),
    5_000,
    'get',
  );
  expect(vm?.status?.phase).toBe(VmPhase.RUNNING);
  expect(vm?.status?.epoch).toBe(1n);
  expect(world.runningOn(vm?.meta?.id ?? '')).toEqual([vm?.status?.host]);
  expect(world.pool.volumes.size).toBe(2);
  tellsAllOnce(world, survivor);
  world.note(`${vm?.meta?.id} runs on ${vm?.status?.host}`);
  return world;
}

function readyHosts(world: World, controller: string): number {
  return world
    .controller(controller)
    .view.tables['host-status'].sorted()
    .filter((entry) => entry.record.state === 'HOST_STATE_READY').length;
}

/** No event was missed and none was told twice, by whichever leader; every call has one audit record. */
function tellsAllOnce(world: World, survivor: string): void {
  const { tables } = world.controller(survivor).view;
  const events = tables.event.oldestFirst().map(({ record }) => record);
  const count = (reason: string) => events.filter((event) => event.reason === reason).length;
  for (const reason of ['NETWORK_CREATED', 'VM_CREATED', 'VM_STARTING', 'VM_STARTED', 'OPERATION_SUCCEEDED'])
    expect([reason, count(reason)]).toEqual([reason, 1]);
  const terms = events.flatMap(({ attributes }) => attributes.term ?? []);
  expect(terms.length).toBeGreaterThanOrEqual(2);
  expect(new Set(terms).size).toBe(terms.length);
  // A subscriber may hear one again, and hears all.
  expect(new Set(world.bus.events.map(({ id }) => id))).toEqual(new Set(events.map(({ id }) => id)));
  const calls = tables.audit.oldestFirst().map(({ record }) => record.method.split('/').at(-1));
  expect(calls).toEqual(['CreateNetwork', 'CreateVm']);
}

describe('a VM created while the leader dies', () => {
  it.each(Array.from({ length: 40 }, (_, i) => [i + 1, i * 15]))(
    'seed %i, killed after %i ms: created once',
    async (seed, killAfterMs) => {
      await createWhileLeaderDies(seed, killAfterMs);
    },
  );

  it('gives the same trace twice for the same seed, and another for another', async () => {
    const first = await createWhileLeaderDies(7, 120);
    const second = await createWhileLeaderDies(7, 120);
    const other = await createWhileLeaderDies(8, 120);
    expect(second.trace).toEqual(first.trace);
    expect(other.trace).not.toEqual(first.trace);
  });
});
