// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import { move } from '@busbar/core/state-table';
import type { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import {
  type Operation,
  OperationState,
  type OperationStep,
  OperationStepState,
} from '@busbar/proto/gen/busbar/v1/operation';
import type { SagaStep } from './saga.ts';
import { type LiveOperationState, OPERATION_STATES } from './state.ts';

/**
 * How an operation's record changes: pure functions from record to record. The runner decides
 * which one applies; `step` is the index of the step to do next, or, while undoing, of the step to undo next.
 */

export function operationOf(record: OperationRecord): Operation {
  assert(record.operation !== undefined, 'operation record without operation');
  return record.operation;
}

function withOperation(record: OperationRecord, change: Partial<Operation>): OperationRecord {
  return { ...record, operation: { ...operationOf(record), ...change } };
}

function toState(record: OperationRecord, state: LiveOperationState): LiveOperationState {
  return move(OPERATION_STATES, operationOf(record).state as LiveOperationState, state);
}

function setStep(
  steps: readonly OperationStep[],
  index: number,
  state: OperationStepState,
  now: Date,
): OperationStep[] {
  return steps.map((step, i) => {
    if (i !== index) return step;
    const ended = state !== OperationStepState.RUNNING && state !== OperationStepState.PENDING;
    return { ...step, state, startTime: step.startTime ?? now, endTime: ended ? now : undefined };
  });
}

export function begun(record: OperationRecord, now: Date): OperationRecord {
  const operation = operationOf(record);
  return withOperation(record, {
    state: toState(record, OperationState.RUNNING),
    steps: setStep(operation.steps, 0, OperationStepState.RUNNING, now),
    message: operation.steps[0]?.name ?? '',
  });
}

export function stepDone(record: OperationRecord, facts: Readonly<Record<string, string>>, now: Date): OperationRecord {
  const operation = operationOf(record);
  const next = record.step + 1;
  const last = next === operation.steps.length;
  let steps = setStep(operation.steps, record.step, OperationStepState.DONE, now);
  if (!last) steps = setStep(steps, next, OperationStepState.RUNNING, now);
  return {
    ...withOperation(record, {
      steps,
      progressPercent: Math.floor((100 * next) / operation.steps.length),
      state: last ? toState(record, OperationState.SUCCEEDED) : operation.state,
      endTime: last ? now : undefined,
      message: last ? '' : (steps[next]?.name ?? ''),
    }),
    facts: { ...record.facts, ...facts },
    step: next,
  };
}

export function waiting(record: OperationRecord, message: string): OperationRecord {
  return withOperation(record, { message });
}

export function turnedAround(record: OperationRecord, error: ErrorInfo, now: Date): OperationRecord {
  const operation = operationOf(record);
  return withOperation(record, {
    state: toState(record, OperationState.UNDOING),
    error,
    steps: setStep(operation.steps, record.step, OperationStepState.FAILED, now),
    message: 'undoing',
  });
}

/** The step at `record.step` is undone; when it was the first, the operation has ended. */
export function stepUndone(record: OperationRecord, table: readonly SagaStep[], now: Date): OperationRecord {
  const operation = operationOf(record);
  const hadUndo = table[record.step]?.undo != null;
  const steps = hadUndo ? setStep(operation.steps, record.step, OperationStepState.UNDONE, now) : operation.steps;
  const undone = { ...withOperation(record, { steps }), step: record.step - 1 };
  return undone.step >= 0 ? undone : endedWith(undone, operation.error ?? CANCELLED, now);
}

/** Past the point of no return: what was done stays. */
export function stopped(record: OperationRecord, error: ErrorInfo, now: Date): OperationRecord {
  const steps = setStep(operationOf(record).steps, record.step, OperationStepState.FAILED, now);
  return endedWith(withOperation(record, { steps }), error, now);
}

/** What it was about turned out to be otherwise: it ends where it is. */
export function voided(record: OperationRecord, error: ErrorInfo, now: Date): OperationRecord {
  const pending = operationOf(record).state === OperationState.PENDING;
  const state = toState(record, pending ? OperationState.CANCELLED : OperationState.FAILED);
  return withOperation(record, { state, error, endTime: now, message: '' });
}

function endedWith(record: OperationRecord, error: ErrorInfo, now: Date): OperationRecord {
  const state = toState(record, error.reason === CANCELLED_REASON ? OperationState.CANCELLED : OperationState.FAILED);
  return withOperation(record, { state, error, endTime: now, message: '' });
}

export const CANCELLED_REASON = 'OPERATION_CANCELLED';

export const CANCELLED: ErrorInfo = {
  reason: CANCELLED_REASON,
  message: 'the operation was cancelled on request',
  hint: '',
  fields: [],
};
