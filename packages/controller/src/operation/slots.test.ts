// SPDX-License-Identifier: Apache-2.0
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { describe, expect, it } from 'vitest';
import { add, lead, pass, rig, runner, state, useRunner } from './runner.fixture.ts';
import { DONE, type Saga } from './saga.ts';

// How many steps at once, and of what kind.
const { SUCCEEDED } = OperationState;
useRunner();

describe('slots', () => {
  it('lets steps that wait for the pool hold up only steps that touch the pool', async () => {
    let active = 0;
    let most = 0;
    let release = () => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const pool: Saga = {
      name: 'pool',
      steps: [
        {
          name: 'pool',
          pool: true,
          do: async ({ storage }) => {
            expect(storage).toBe(rig.api.storage);
            most = Math.max(most, ++active);
            await gate;
            active--;
            return DONE;
          },
          undo: null,
        },
      ],
    };
    const quick: Saga = { name: 'quick', steps: [{ name: 'quick', do: async () => DONE, undo: null }] };
    lead(pool, quick);
    for (let i = 0; i < 40; i++) await add(`op-${i}`, pool);
    await pass(10_000);
    await add('op-stop', quick);
    await pass(2_000);
    expect([most, state('op-stop')]).toEqual([8, SUCCEEDED]);
    let settled = false;
    void runner.settled().then(() => {
      settled = true;
    });
    await rig.clock.advance(1_000);
    expect(settled).toBe(false);
    release();
    await rig.clock.advance(1_000);
    expect(settled).toBe(true);
    await pass(10_000);
    expect(state('op-39')).toBe(SUCCEEDED);
    expect(most).toBe(8);
  });
});
