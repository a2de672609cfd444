// SPDX-License-Identifier: Apache-2.0
import type { BusbarError } from '@busbar/core/errors';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { describe, expect, it } from 'vitest';
import { ask, ended, outcomeOf, STORIES } from './sagas.ts';
import { World } from './world.ts';

/** Goal: what the store or the wall clock does is no reason for a VM, a lease or a leader to end. */
const HOUR_MS = 3_600_000;

async function withRunningVm(seed: number): Promise<World> {
  const world = new World({ seed });
  const hosts = () => world.controller('host1').view.tables['host-status'].sorted();
  const ready = () => hosts().filter(({ record }) => record.state === 'HOST_STATE_READY').length === 3;
  await world.until(() => world.leaderName() !== null && ready(), 40_000, 'a ready cluster');
  await STORIES['stop-vm']?.prepare(world);
  expect(outcomeOf(world)).toMatchObject({ vms: [{ phase: VmPhase.RUNNING, epoch: 1n, runs: 1 }] });
  return world;
}

const leases = (world: World) => world.hosts.map(({ agent }) => (agent?.leaseRemainingMs() ?? 0) > 0);

/** Virtual time: a second of a quiet machine. */
const TIMEOUT_MS = 60_000;

describe('a store that is full', { timeout: TIMEOUT_MS }, () => {
  it('refuses what would be written and says what to do; VM, leases and leader go on; then all that was accepted is finished', async () => {
    const world = await withRunningVm(1);
    const leader = world.leaderName();
    const machines = world.trace.filter((line) => line.includes(' -> ')).length;
    // Accepted before, in the middle of its work when the space ends.
    await ask(world, 'VolumeService', 'createVolume', {
      name: 'history',
      labels: {},
      spec: { sizeBytes: 1024n ** 3n, image: '' },
      validateOnly: false,
      requestId: '',
    });
    world.truth.setFull(true);
    const refused = await ask(world, 'VmService', 'stopVm', {
      vm: 'relay-1',
      force: false,
      timeoutMs: 0,
      validateOnly: false,
      requestId: 'r1',
    }).catch((error: BusbarError) => error);
    expect(refused).toMatchObject({ kind: 'exhausted', reason: 'STORE_FULL', hint: expect.stringContaining('disarm') });
    for (let i = 0; i < 60; i++) {
      await world.clock.advance(1_000);
      expect(leases(world)).toEqual([true, true, true]);
      expect(world.leaderName()).toBe(leader);
    }
    await ask(world, 'VmService', 'getVm', { vm: 'relay-1' });
    expect(world.trace.filter((line) => line.includes(' -> ')).length).toBe(machines);

    world.truth.setFull(false);
    await ended(world);
    await world.clock.advance(1_000);
    expect(outcomeOf(world)).toMatchObject({
      vms: [{ phase: VmPhase.RUNNING, epoch: 1n, runs: 1 }],
      lost: { keys: [], missing: [], volumes: [], images: [] },
    });
    const operations = world.controller('host1').view.tables.operation.sorted();
    expect(operations.map(({ record }) => record.operation?.state)).toEqual([
      OperationState.SUCCEEDED,
      OperationState.SUCCEEDED,
    ]);
  });
});

describe('a wall clock that jumps by an hour', { timeout: TIMEOUT_MS }, () => {
  it.each([HOUR_MS, -HOUR_MS])('(%i ms) under everybody changes nothing at all', async (jumpMs) => {
    const run = async (jump: number) => {
      const world = await withRunningVm(2);
      world.clock.jumpWall(jump);
      await world.clock.advance(20_000);
      await STORIES['restart-vm']?.call(world);
      await world.clock.advance(50);
      world.clock.jumpWall(-jump);
      await ended(world);
      // Past a round of the clean-up.
      await world.clock.advance(90_000);
      return { trace: world.trace, outcome: outcomeOf(world), leases: leases(world) };
    };
    const [still, jumped] = [await run(0), await run(jumpMs)];
    expect(jumped).toEqual(still);
    expect(jumped.leases).toEqual([true, true, true]);
  });
});
