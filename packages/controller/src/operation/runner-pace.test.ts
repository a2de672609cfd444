// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { NetworkRecord, OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { OperationState, OperationStepState } from '@busbar/proto/gen/busbar/v1/operation';
import { describe, expect, it } from 'vitest';
import { putRecord, recordKey } from '../records/kinds.ts';
import type { Transaction } from '../store/cluster-store.ts';
import { operationOf } from './progress.ts';
import { add, lead, leadWith, log, operation, pass, rig, runner, state, step, useRunner } from './runner.fixture.ts';
import { RETRY_LIMIT_MS } from './runner.ts';
import { DONE, done, NO_WRITES, type PoolStep, type Saga, type StepOutcome, type StepWrites } from './saga.ts';

// What is written together, and how soon what waits goes on.
const { RUNNING, SUCCEEDED, FAILED } = OperationState;
useRunner();

const unavailable = () => new BusbarError({ kind: 'unavailable', reason: 'TEST_AWAY', message: 'pool is away' });

const putNetwork = (): StepWrites => ({
  compare: [],
  writes: [putRecord('network', 'net-1', NetworkRecord.fromPartial({ meta: { name: 'net-1' } }))],
});
const putOf = ({ writes }: Transaction, key: string): string => {
  const write = writes.find((each) => each.key === key);
  return write?.kind === 'put' ? write.value : '';
};

describe('steps in a row', () => {
  it('records steps that leave nothing behind together with the next one', async () => {
    const written: string[] = [];
    const saga: Saga = {
      name: 'chain',
      steps: [
        step('one'),
        step('two', async () => done(NO_WRITES, { two: 'seen' })),
        step('three', async ({ operation: record }) => {
          expect(record.facts).toEqual({ two: 'seen' });
          return done(putNetwork());
        }),
        step('four'),
        { name: 'pool', pool: true, do: async () => DONE, undo: null },
        step('six'),
      ],
    };
    leadWith([saga], async (transaction) => {
      const record = OperationRecord.fromJSON(JSON.parse(putOf(transaction, recordKey('operation', 'op-1'))));
      written.push(`${record.step} ${operationOf(record).state}`);
      return rig.api.store.txn(transaction);
    });
    await add('op-1', saga);
    await pass(5_000);
    // With what three writes; before the pool is touched; after it; at the end.
    expect(written).toEqual([`3 ${RUNNING}`, `4 ${RUNNING}`, `5 ${RUNNING}`, `6 ${SUCCEEDED}`]);
    expect(log).toEqual(['do one', 'do two', 'do three', 'do four', 'do six']);
  });

  it('turns around from where it had got, recorded or not', async () => {
    const saga: Saga = {
      name: 'chain',
      steps: [
        step('one'),
        step('two', async () => {
          throw new BusbarError({ kind: 'precondition', reason: 'TEST_NO', message: 'no' });
        }),
      ],
    };
    lead(saga);
    await add('op-1', saga);
    await pass(5_000);
    expect(state('op-1')).toBe(FAILED);
    expect(operation('op-1').steps.map((each) => each.state)).toEqual([
      OperationStepState.UNDONE,
      OperationStepState.UNDONE,
    ]);
    expect(log).toEqual(['do one', 'do two', 'undo two', 'undo one']);
  });

  it('gives up a step behind one that leaves nothing as late as any other', async () => {
    const saga: Saga = { name: 'chain', steps: [step('one'), step('two', () => Promise.reject(unavailable()))] };
    lead(saga);
    await add('op-1', saga);
    await pass(RETRY_LIMIT_MS - 2_000);
    expect(state('op-1')).toBe(RUNNING);
    await pass(20_000);
    expect(state('op-1')).toBe(FAILED);
  });
});

describe('a race that is lost', () => {
  /** Somebody else writes the operation during each of the first so many tries. */
  const racing = (losses: number): Saga => {
    let left = losses;
    return {
      name: 'racing',
      steps: [
        step('race', async ({ operation: record }) => {
          if (left-- > 0) {
            await rig.api.store.txn({ compare: [], writes: [putRecord('operation', operationOf(record).id, record)] });
          }
          return DONE;
        }),
      ],
    };
  };

  it.each([
    ['once costs no pause', 1, 100],
    ['again and again is no error', 3, 20_000],
  ])('%s', async (_, losses, withinMs) => {
    const saga = racing(losses);
    lead(saga);
    await add('op-1', saga);
    await pass(withinMs);
    expect(state('op-1')).toBe(SUCCEEDED);
    expect(log.length).toBe(losses + 1);
  });
});

describe('a step that waits', () => {
  const ready = () => rig.view.tables.network.get('net-1') !== undefined;
  const look = async (): Promise<StepOutcome> => {
    log.push('look');
    return ready() ? DONE : { kind: 'wait', message: 'for the network' };
  };
  async function makeReady(): Promise<void> {
    const { revision } = await rig.run(rig.api.store.txn(putNetwork()));
    await rig.run(rig.view.waitFor(revision));
  }
  const tick = async (wake = () => {}) => {
    runner.tick(wake);
    await rig.run(runner.settled());
  };

  it('looks again as soon as the view changes, and wakes nobody meanwhile', async () => {
    const saga: Saga = { name: 'waits', steps: [{ name: 'wait', do: look, undo: null }] };
    lead(saga);
    await add('op-1', saga);
    await pass(1_100);
    const looks = log.length;
    let woken = 0;
    for (let i = 0; i < 5; i++) await tick(() => woken++);
    expect([log.length, woken]).toEqual([looks, 0]);
    await makeReady();
    await tick(() => woken++);
    expect([log.length, woken]).toEqual([looks + 1, 1]);
    expect(state('op-1')).toBe(SUCCEEDED);
  });

  it('asks the pool in its own time', async () => {
    const asks: PoolStep = { name: 'ask', pool: true, do: look, undo: null };
    const saga: Saga = { name: 'asks', steps: [asks] };
    lead(saga);
    await add('op-1', saga);
    await pass(1_100);
    const looks = log.length;
    await makeReady();
    await tick();
    expect(log.length).toBe(looks);
    await pass(1_500);
    expect(state('op-1')).toBe(SUCCEEDED);
  });
});
