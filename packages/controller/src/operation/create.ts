// SPDX-License-Identifier: Apache-2.0

import type { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { ResourceRef } from '@busbar/proto/gen/busbar/v1/common';
import { OperationState, OperationStepState } from '@busbar/proto/gen/busbar/v1/operation';
import type { Api, Call } from '../api/call.ts';
import { deleteRecord, putRecord } from '../records/kinds.ts';
import { surplus } from '../records/surplus.ts';
import type { Compare, Write } from '../store/cluster-store.ts';
import { unchanged } from '../view/table.ts';
import { operationOf } from './progress.ts';
import type { Saga } from './saga.ts';
import { ENDED } from './state.ts';

/** Ended operations kept at most, and for how long (see operation.proto). */
export const KEPT_ENDED = 1_000;
export const KEPT_MS = 24 * 3_600_000;

/** The write that makes a saga start. */
export function newOperation(
  api: Api,
  call: Call,
  request: {
    readonly method: string;
    readonly requestId: string;
    readonly target: ResourceRef;
    readonly saga: Saga;
    readonly facts?: Record<string, string>;
  },
): { readonly id: string; readonly write: Write } {
  const id = api.random.uuid();
  const record: OperationRecord = {
    operation: {
      id,
      method: request.method,
      target: request.target,
      state: OperationState.PENDING,
      progressPercent: 0,
      steps: request.saga.steps.map((step) => ({
        name: step.name,
        state: OperationStepState.PENDING,
        startTime: undefined,
        endTime: undefined,
      })),
      message: 'waiting for the leader',
      error: undefined,
      createTime: api.clock.wallTime(),
      endTime: undefined,
      createdBy: call.caller.name,
      requestId: request.requestId,
      cancelRequested: false,
      revision: 0n,
    },
    saga: request.saga.name,
    facts: request.facts ?? {},
    step: 0,
  };
  return { id, write: putRecord('operation', id, record) };
}

/**
 * Asks the live operations on a target to stop, in the transaction that makes the one that replaces them. Its
 * creation is only given up for its deletion: whatever else is asked for comes after it.
 */
export function supersede(
  api: Api,
  targetId: string,
  by: Saga,
): { readonly compare: Compare[]; readonly writes: Write[] } {
  const compare: Compare[] = [];
  const writes: Write[] = [];
  for (const entry of api.view.tables.operation.sorted()) {
    const operation = operationOf(entry.record);
    if (operation.target?.id !== targetId || ENDED.has(operation.state) || operation.cancelRequested) continue;
    if (entry.record.saga.startsWith('create-') && !by.name.startsWith('delete-')) continue;
    compare.push(unchanged('operation', entry));
    writes.push(
      putRecord('operation', entry.id, { ...entry.record, operation: { ...operation, cancelRequested: true } }),
    );
  }
  return { compare, writes };
}

/** Ended operations that are no longer to be kept. */
export function expired(api: Pick<Api, 'view' | 'clock'>): readonly Write[] {
  const now = api.clock.wallTime().getTime();
  const ended = api.view.tables.operation
    .sorted()
    .filter((entry) => ENDED.has(operationOf(entry.record).state))
    .sort((a, b) => endMs(a.record) - endMs(b.record));
  const old = ended.filter(({ record }) => now - endMs(record) > KEPT_MS);
  const recent = ended.slice(old.length);
  // Somebody who begins a thousand of them still finds his own gone first.
  const tooMany = surplus(recent, recent.length - KEPT_ENDED, ({ record }) => operationOf(record).createdBy);
  return [...old, ...tooMany].map((entry) => deleteRecord('operation', entry.id));
}

function endMs(record: OperationRecord): number {
  return operationOf(record).endTime?.getTime() ?? 0;
}
