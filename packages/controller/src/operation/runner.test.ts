// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { describe, expect, it } from 'vitest';
import { recordKey } from '../records/kinds.ts';
import { storeFull } from '../store/errors.ts';
import { add, deposed, lead, leadWith, log, operation, pass, rig, state, step, useRunner } from './runner.fixture.ts';
import { RETRY_LIMIT_MS } from './runner.ts';
import { DONE, NO_WRITES, type Saga, type ViewStep } from './saga.ts';

// In which order, how many at once, how often, and when it gives up.
const { PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, UNDOING } = OperationState;
useRunner();

async function cancel(id: string): Promise<void> {
  await rig.call('OperationService', 'cancelOperation', { operation: id });
}

const unavailable = () => new BusbarError({ kind: 'unavailable', reason: 'TEST_AWAY', message: 'pool is away' });

describe('order', () => {
  it('works on one target in the order of acceptance, on others meanwhile', async () => {
    let release = () => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const slow: Saga = {
      name: 'slow',
      steps: [{ name: 'slow', pool: true, do: () => gate.then(() => DONE), undo: null }],
    };
    const quick: Saga = { name: 'quick', steps: [step('quick')] };
    lead(slow, quick);
    await add('op-b', slow, 'vm-1');
    await add('op-a', quick, 'vm-1');
    await add('op-c', quick, 'vm-2');
    await pass(3_000);
    expect([state('op-b'), state('op-a'), state('op-c')]).toEqual([RUNNING, PENDING, SUCCEEDED]);
    release();
    await pass(3_000);
    expect([state('op-b'), state('op-a')]).toEqual([SUCCEEDED, SUCCEEDED]);
  });

  it('does at most eight steps at once', async () => {
    let active = 0;
    let most = 0;
    const busy: Saga = {
      name: 'busy',
      steps: [
        step('busy', async () => {
          most = Math.max(most, ++active);
          await new Promise<void>((resolve) => rig.clock.timer(1_000, resolve));
          active--;
          return DONE;
        }),
      ],
    };
    lead(busy);
    for (let i = 0; i < 20; i++) await add(`op-${i}`, busy);
    await pass(10_000);
    expect(most).toBe(8);
    for (let i = 0; i < 20; i++) expect(state(`op-${i}`)).toBe(SUCCEEDED);
  });

  it('leaves a saga of a newer version alone, and what comes after it on the same target', async () => {
    const quick: Saga = { name: 'quick', steps: [step('quick')] };
    lead(quick);
    await add('op-1', { name: 'from-the-future', steps: quick.steps }, 'vm-1');
    await add('op-2', quick, 'vm-1');
    await add('op-3', quick, 'vm-2');
    await pass(60_000);
    expect([state('op-1'), state('op-2'), state('op-3')]).toEqual([PENDING, PENDING, SUCCEEDED]);
  });
});

describe('failure', () => {
  const failing = (limitMs: number): Saga => ({
    name: 'failing',
    steps: [
      step('first'),
      step('second', async () => {
        if (rig.clock.nowMs() < limitMs) throw unavailable();
        return DONE;
      }),
    ],
  });

  it('tries again with growing pauses while something does not answer, and says so', async () => {
    const saga = failing(rig.clock.nowMs() + 60_000);
    lead(saga);
    await add('op-1', saga);
    await pass(10_000);
    expect(state('op-1')).toBe(RUNNING);
    expect(operation('op-1').message).toBe('second: pool is away; retrying');
    await pass(60_000);
    expect(state('op-1')).toBe(SUCCEEDED);
    const tries = log.filter((line) => line === 'do second').length;
    expect(tries).toBeGreaterThan(8);
    expect(tries).toBeLessThan(30);
  });

  it('turns around after two minutes of failures, and undoes what it began, last first', async () => {
    const saga = failing(Number.POSITIVE_INFINITY);
    lead(saga);
    await add('op-1', saga);
    await pass(RETRY_LIMIT_MS - 2_000);
    expect(state('op-1')).toBe(RUNNING);
    await pass(20_000);
    expect(state('op-1')).toBe(FAILED);
    expect(operation('op-1').error?.reason).toBe('TEST_AWAY');
    expect(log.filter((line) => line.startsWith('undo'))).toEqual(['undo second', 'undo first']);
  });

  it('does not count the time that a step waited as failing', async () => {
    const begunMs = rig.clock.nowMs();
    const saga: Saga = {
      name: 'patient',
      steps: [
        step('wait', async () => {
          const ageMs = rig.clock.nowMs() - begunMs;
          if (ageMs < 3 * RETRY_LIMIT_MS) return { kind: 'wait', message: 'for the guest' };
          if (ageMs < 3 * RETRY_LIMIT_MS + 10_000) throw unavailable();
          return DONE;
        }),
      ],
    };
    lead(saga);
    await add('op-1', saga);
    await pass(3 * RETRY_LIMIT_MS + 60_000);
    expect(state('op-1')).toBe(SUCCEEDED);
  });

  it.each([
    ['does not answer', new BusbarError({ kind: 'timeout', reason: 'STORE_OUTCOME_UNKNOWN', message: 'lost' })],
    ['is full', storeFull()],
  ])('never turns around because the store %s', async (_, error) => {
    const saga: Saga = { name: 'quick', steps: [step('only')] };
    let away = false;
    let calls = 0;
    // Also when it serves now and then: what follows a refusal may go through.
    leadWith([saga], async (transaction) => {
      if (away || calls++ % 2 === 1) throw error;
      return rig.api.store.txn(transaction);
    });
    await add('op-1', saga);
    await pass(100);
    away = true;
    await add('op-2', saga);
    await pass(3 * RETRY_LIMIT_MS);
    away = false;
    await pass(10_000);
    expect([state('op-1'), state('op-2')]).toEqual([SUCCEEDED, SUCCEEDED]);
  });

  it('does a step whose record was written although the answer was lost no harm: it goes on from there', async () => {
    const saga: Saga = { name: 'two', steps: [step('one'), step('two')] };
    let losses = 3;
    leadWith([saga], async (transaction) => {
      const result = await rig.api.store.txn(transaction);
      if (losses-- > 0) throw new BusbarError({ kind: 'timeout', reason: 'STORE_OUTCOME_UNKNOWN', message: 'lost' });
      return result;
    });
    await add('op-1', saga);
    await pass(20_000);
    expect(state('op-1')).toBe(SUCCEEDED);
    expect(operation('op-1').steps.map((each) => each.state)).toEqual([
      'OPERATION_STEP_STATE_DONE',
      'OPERATION_STEP_STATE_DONE',
    ]);
    expect(log).toEqual(['do one', 'do two']);
  });

  it('turns around when the store refuses a step’s writes for good', async () => {
    const huge = { kind: 'put', key: 'busbar/test', value: 'x'.repeat(2_000_000) } as const;
    const saga: Saga = {
      name: 'huge',
      steps: [step('huge', async () => ({ kind: 'done', writes: { compare: [], writes: [huge] } }))],
    };
    lead(saga);
    await add('op-1', saga);
    await pass(5_000);
    expect(state('op-1')).toBe(FAILED);
    expect(operation('op-1').error?.reason).toBe('STORE_REQUEST_INVALID');
  });

  it('retries an undo until it succeeds', async () => {
    let failures = 50;
    const saga: Saga = {
      name: 'stubborn',
      steps: [
        step('make', undefined, {
          undo: async () => {
            if (failures-- > 0) throw new BusbarError({ kind: 'precondition', reason: 'TEST', message: 'not yet' });
            return NO_WRITES;
          },
        }),
        step('fail', async () => {
          throw new BusbarError({ kind: 'precondition', reason: 'TEST_NO', message: 'no' });
        }),
      ],
    };
    lead(saga);
    await add('op-1', saga);
    await pass(60_000);
    expect(state('op-1')).toBe(UNDOING);
    await pass(600_000);
    expect(state('op-1')).toBe(FAILED);
  });

  it('stops touching anything once it does not lead', async () => {
    const saga: Saga = {
      name: 'late',
      steps: [
        step('late', async () => {
          deposed.abort();
          throw new BusbarError({ kind: 'precondition', reason: 'TEST', message: 'no' });
        }),
      ],
    };
    lead(saga);
    await add('op-1', saga);
    await pass(2_000);
    expect(state('op-1')).toBe(PENDING);
  });
});

describe('cancellation', () => {
  const waits: ViewStep['do'] = async () => ({ kind: 'wait', message: 'waits' });

  it.each([0, 1, 2])('while step %i waits: undoes what was begun, last first', async (at) => {
    const saga: Saga = {
      name: 'three',
      steps: ['a', 'b', 'c'].map((name, index) => step(name, index === at ? waits : undefined)),
    };
    lead(saga);
    await add('op-1', saga);
    await pass(5_000);
    expect(operation('op-1').message).toBe('waits');
    await cancel('op-1');
    await pass(5_000);
    expect(state('op-1')).toBe(CANCELLED);
    expect(log.filter((line) => line.startsWith('undo'))).toEqual(['undo c', 'undo b', 'undo a'].slice(2 - at));
  });

  it('before it began: ends without a step done', async () => {
    const saga: Saga = { name: 'one', steps: [step('a')] };
    lead(saga);
    await add('op-1', saga);
    await cancel('op-1');
    await pass(5_000);
    expect(state('op-1')).toBe(CANCELLED);
    expect(log).not.toContain('do a');
  });

  it('past the point of no return: ends and leaves what is there', async () => {
    const saga: Saga = { name: 'two', steps: [step('a'), step('b', waits, { pointOfNoReturn: true })] };
    lead(saga);
    await add('op-1', saga);
    await pass(5_000);
    await cancel('op-1');
    await pass(5_000);
    expect(state('op-1')).toBe(CANCELLED);
    expect(log.some((line) => line.startsWith('undo'))).toBe(false);
  });

  it('where only forward makes sense: comes too late', async () => {
    let held = true;
    const saga: Saga = {
      name: 'forward',
      steps: [
        step('a'),
        step('b', undefined, { pointOfNoReturn: true, onlyForward: true }),
        step('c', async (context) => (held ? waits(context) : DONE)),
      ],
    };
    lead(saga);
    await add('op-1', saga);
    await pass(5_000);
    await cancel('op-1');
    await pass(5_000);
    expect(state('op-1')).toBe(RUNNING);
    held = false;
    await pass(5_000);
    expect(state('op-1')).toBe(SUCCEEDED);
  });

  it('of an ended or unknown operation is refused with the reason', async () => {
    const saga: Saga = { name: 'one', steps: [step('a')] };
    lead(saga);
    await add('op-1', saga);
    await pass(5_000);
    await expect(cancel('op-1')).rejects.toMatchObject({ kind: 'precondition', reason: 'OPERATION_ENDED' });
    await expect(cancel('op-9')).rejects.toMatchObject({ kind: 'not-found', reason: 'OPERATION_NOT_FOUND' });
    expect((await rig.api.store.get(recordKey('operation', 'op-9'))).value).toBeNull();
  });

  it('twice is the same as once', async () => {
    const saga: Saga = { name: 'one', steps: [step('a', waits)] };
    lead(saga);
    await add('op-1', saga);
    await pass(2_000);
    await cancel('op-1');
    const { revision } = operation('op-1');
    await cancel('op-1');
    expect(operation('op-1').revision).toBe(revision);
  });
});
