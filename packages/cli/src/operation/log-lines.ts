// SPDX-License-Identifier: Apache-2.0
/** From two states of an operation, one after the other, to what happened in between. Pure. */
import { type Operation, OperationState, OperationStepState } from '@busbar/proto/gen/busbar/v1/operation';

export const ENDED: ReadonlySet<OperationState> = new Set([
  OperationState.SUCCEEDED,
  OperationState.FAILED,
  OperationState.CANCELLED,
]);

export interface LogLine {
  readonly time: Date | undefined;
  /** Empty when it is about the whole operation. */
  readonly step: string;
  readonly text: string;
}

/** `seenAt`: for what the operation carries no time of its own. */
export function logLines(before: Operation | undefined, now: Operation, seenAt: Date): readonly LogLine[] {
  const lines: LogLine[] = [];
  const whole = (time: Date | undefined, text: string) => lines.push({ time, step: '', text });
  if (before === undefined) {
    const by = now.createdBy === '' ? '' : `, asked for by ${now.createdBy}`;
    whole(now.createTime, `${now.method} ${now.target?.kind ?? ''}/${now.target?.name ?? ''}${by}`);
  }
  for (const step of now.steps) {
    const state = before?.steps.find(({ name }) => name === step.name)?.state ?? OperationStepState.PENDING;
    if (state === step.state) continue;
    const line = (time: Date | undefined, text: string) => lines.push({ time, step: step.name, text });
    const fresh = state === OperationStepState.PENDING && step.startTime !== undefined;
    if (fresh) line(step.startTime, 'begun');
    if (step.state === OperationStepState.DONE) line(step.endTime, `done${duration(step.startTime, step.endTime)}`);
    if (step.state === OperationStepState.FAILED) line(step.endTime, 'failed');
    if (step.state === OperationStepState.UNDONE) line(step.endTime, 'undone');
  }
  if (now.cancelRequested && before?.cancelRequested !== true) whole(seenAt, 'cancellation is asked for');
  if (now.state === OperationState.UNDOING && before?.state !== now.state) whole(seenAt, 'undoing what was done');
  if (now.message !== '' && now.message !== before?.message && !ENDED.has(now.state)) whole(seenAt, now.message);
  if (ENDED.has(now.state) && (before === undefined || !ENDED.has(before.state))) whole(now.endTime, ending(now));
  return lines;
}

function ending(operation: Operation): string {
  const how = operation.state.replace('OPERATION_STATE_', '').toLowerCase();
  const { error } = operation;
  const why = error === undefined || error.message === '' ? '' : `: ${error.message} (${error.reason})`;
  return `${how}${duration(operation.createTime, operation.endTime)}${why}`;
}

export function duration(start: Date | undefined, end: Date | undefined): string {
  if (start === undefined || end === undefined) return '';
  return ` in ${((end.getTime() - start.getTime()) / 1000).toFixed(1)} s`;
}
