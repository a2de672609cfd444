// SPDX-License-Identifier: Apache-2.0
// The runner alone, on sagas made up by tests: `useRunner()` gives each test a new one.
import { silentLogger } from '@busbar/core/log';
import { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { type Operation, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { afterEach, beforeEach } from 'vitest';
import type { Leader } from '../leader/leader.ts';
import { putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';
import { operationOf } from './progress.ts';
import { SagaRunner } from './runner.ts';
import { DONE, NO_WRITES, type Saga, type ViewStep } from './saga.ts';

export let rig: Rig;
export let runner: SagaRunner;
/** What the steps did and undid, in order. */
export let log: string[];
/** Aborted: the leader leads no more. */
export let deposed: AbortController;

export function useRunner(): void {
  beforeEach(async () => {
    rig = new Rig();
    await rig.start();
    log = [];
    deposed = new AbortController();
  });
  afterEach(() => rig.stop());
}

export function lead(...sagas: Saga[]): void {
  leadWith(sagas, (transaction) => rig.api.store.txn(transaction));
}

export function leadWith(sagas: readonly Saga[], txn: Leader['txn']): void {
  const leader: Leader = { term: 1n, signal: deposed.signal, txn };
  const { view, clock } = rig;
  runner = new SagaRunner({ sagas, view, storage: rig.api.storage, clock, logger: silentLogger, leader });
}

export function step(name: string, work: ViewStep['do'] = async () => DONE, more: Partial<ViewStep> = {}): ViewStep {
  return {
    name,
    do: async (context) => {
      log.push(`do ${name}`);
      return work(context);
    },
    undo: async () => {
      log.push(`undo ${name}`);
      return NO_WRITES;
    },
    ...more,
  };
}

export async function add(id: string, saga: Saga, target = id): Promise<void> {
  const record = OperationRecord.fromPartial({
    operation: {
      id,
      target: { kind: 'vm', id: target, name: target },
      state: OperationState.PENDING,
      steps: saga.steps.map(({ name }) => ({ name })),
    },
    saga: saga.name,
  });
  const { revision } = await rig.run(rig.api.store.txn({ compare: [], writes: [putRecord('operation', id, record)] }));
  await rig.run(rig.view.waitFor(revision));
}

export const operation = (id: string): Operation =>
  operationOf(rig.view.tables.operation.get(id)?.record ?? OperationRecord.fromPartial({}));
export const state = (id: string) => operation(id).state;

/** As the leader does it: at least every 500 ms, and whenever a step ended. */
export async function pass(ms: number): Promise<void> {
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
