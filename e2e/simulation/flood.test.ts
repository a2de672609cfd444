// SPDX-License-Identifier: Apache-2.0
import { testCaller } from '@busbar/controller/testing/callers';
import type { BusbarError } from '@busbar/core/errors';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { CreateNetworkRequest } from '@busbar/proto/gen/busbar/v1/network';
import { CreateVmRequest, RunPolicy, UpdateVmRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { expect, it } from 'vitest';
import { World } from './world.ts';

/** Goal: a caller who writes as fast as he is let, to every controller, fills nothing and keeps nobody from working. */
const QUOTA = 16 * 1024 ** 2;
const GREEDY = testCaller('operator', 'client/greedy');
const HONEST = testCaller('operator', 'client/honest');
const ROUNDS = 3;
/** Virtual time: some seconds of a quiet machine. */
const TIMEOUT_MS = 60_000;

it('whoever floods every controller with user data neither fills the store nor stops another caller or the leader', {
  timeout: TIMEOUT_MS,
}, async () => {
  const world = new World({ seed: 3, quotaBytes: QUOTA });
  await world.until(() => world.leaderName() !== null, 40_000, 'a leader');
  const done = async <T>(work: Promise<T>): Promise<T | BusbarError> => {
    let result: T | BusbarError | undefined;
    work.then(
      (value) => {
        result = value;
      },
      (error: BusbarError) => {
        result = error;
      },
    );
    await world.until(() => result !== undefined, 20_000, 'an answer');
    return result as T | BusbarError;
  };
  const names = world.liveControllers();
  const spec = { cpu: { vcpus: 1 }, memoryBytes: 1024n ** 3n, runPolicy: RunPolicy.STOPPED };
  await done(world.call(names[0] ?? '', 'VmService', 'createVm', CreateVmRequest.fromPartial({ name: 'fill', spec })));
  await world.clock.advance(5_000);
  const leader = world.leaderName();

  const results = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    for (let n = 0; n < 60; n++) {
      const userData = `#${n}`.padEnd(60_000, '.');
      const update = UpdateVmRequest.fromPartial({
        vm: 'fill',
        updateMask: ['spec.cloudInit'],
        spec: { ...spec, cloudInit: { userData } },
      });
      const outcome = await done(world.call(names[n % names.length] ?? '', 'VmService', 'updateVm', update, GREEDY));
      const reason = outcome instanceof Error ? (outcome as BusbarError).reason : 'ok';
      results.set(reason, (results.get(reason) ?? 0) + 1);
    }
    const request = CreateNetworkRequest.fromPartial({
      name: `n${round}`,
      spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' },
    });
    for (const name of names) {
      const made = await done(
        world.call(name, 'NetworkService', 'createNetwork', { ...request, name: `${name}-${round}` }, HONEST),
      );
      expect(made).not.toBeInstanceOf(Error);
    }
    await world.clock.advance(20_000);
    expect(world.truth.usage().fileBytes).toBeLessThan(QUOTA * 0.7);
  }
  expect(results.get('WRITE_BUDGET_SPENT') ?? 0).toBeGreaterThan(60);
  expect([...results.keys()].sort()).toEqual(['WRITE_BUDGET_SPENT', 'ok']);
  expect(world.leaderName()).toBe(leader);
});
