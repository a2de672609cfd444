// SPDX-License-Identifier: Apache-2.0
import { silentLogger } from '@busbar/core/log';
import { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { type Operation, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Leader } from '../leader/leader.ts';
import { putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';
import { operationOf } from './progress.ts';
import { SagaRunner } from './runner.ts';
import { DONE, type Saga } from './saga.ts';

// How many steps at once, and of what kind.
const { PENDING, SUCCEEDED } = OperationState;

let rig: Rig;
let runner: SagaRunner;
let deposed: AbortController;

beforeEach(async () => {
  rig = new Rig();
  await rig.start();
  deposed = new AbortController();
});
afterEach(() => rig.stop());

function lead(...sagas: Saga[]): void {
  const leader: Leader = { term: 1n, signal: deposed.signal, txn: (transaction) => rig.api.store.txn(transaction) };
  const { view, clock } = rig;
  runner = new SagaRunner({ sagas, view, storage: rig.api.storage, clock, logger: silentLogger, leader });
}

async function add(id: string, saga: Saga, target = id): Promise<void> {
  const record = OperationRecord.fromPartial({
    operation: {
      id,
      target: { kind: 'vm', id: target, name: target },
      state: PENDING,
      steps: saga.steps.map(({ name }) => ({ name })),
    },
    saga: saga.name,
  });
  const { revision } = await rig.run(rig.api.store.txn({ compare: [], writes: [putRecord('operation', id, record)] }));
  await rig.run(rig.view.waitFor(revision));
}

const operation = (id: string): Operation =>
  operationOf(rig.view.tables.operation.get(id)?.record ?? OperationRecord.fromPartial({}));
const state = (id: string) => operation(id).state;

/** As the leader does it: at least every 500 ms, and whenever a step ended. */
async function pass(ms: number): Promise<void> {
  const endMs = rig.clock.nowMs() + ms;
  let due = true;
  const wake = () => {
    due = true;
  };
  while (rig.clock.nowMs() < endMs && !deposed.signal.aborted) {
    due = false;
    runner.tick(wake);
    await rig.clock.advanceUntil(() => due, Math.min(500, endMs - rig.clock.nowMs()));
  }
}

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
