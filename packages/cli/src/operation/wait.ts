// SPDX-License-Identifier: Apache-2.0
/**
 * Waits for an operation and shows its steps. Polls with short waits instead of one long stream: every answer is
 * complete, so the death of the controller that was asked costs one more question to the next.
 */
import {
  type Operation,
  OperationServiceDefinition,
  OperationState,
  OperationStepState,
} from '@busbar/proto/gen/busbar/v1/operation';
import type { Api } from '../api/api.ts';
import { CliError, EXIT } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { formatSeconds, oneLine } from '../output/format.ts';
import { ProgressLine } from '../output/progress.ts';
import { duration, ENDED } from './log-lines.ts';

/** How stale the shown progress may be; the end of the operation is reported at once. */
const POLL_MS = 1000;
/** A controller answers at the end of POLL_MS; this much later it is taken for frozen. */
const SLACK_MS = 3000;
/** How long nobody may answer before waiting ends (the operation goes on). */
const PATIENCE_MS = 120_000;

export async function waitForOperation(session: Session, api: Api, operation: Operation): Promise<Operation> {
  const ended = await follow(session, api, operation);
  if (ended.state === OperationState.SUCCEEDED) return ended;
  throw operationError(ended, session.doing);
}

/** Returns the operation when it has ended, however it ended. */
export async function follow(session: Session, api: Api, operation: Operation): Promise<Operation> {
  session.goesOn = {
    what: 'the operation goes on',
    hint: `busbar operation log -f ${operation.id} shows it, busbar operation cancel ${operation.id} stops it`,
  };
  const progress = new ProgressLine(session.io);
  const shownSteps = new Set<string>();
  const begun = performance.now();
  const show = (now: Operation) => {
    for (const step of now.steps) {
      if (step.state !== OperationStepState.DONE || shownSteps.has(step.name)) continue;
      shownSteps.add(step.name);
      progress.keep(`  ${step.name}: done${duration(step.startTime, step.endTime)}`);
    }
    if (ENDED.has(now.state)) return;
    progress.update(progressText(now, (performance.now() - begun) / 1000));
  };
  let current = operation;
  show(current);
  while (!ENDED.has(current.state)) {
    const response = await api.call(
      OperationServiceDefinition,
      (client, options) => client.waitOperation({ operation: operation.id, timeoutMs: POLL_MS }, options),
      {
        timeoutMs: POLL_MS + SLACK_MS,
        patienceMs: PATIENCE_MS,
        onTrouble: (why) => progress.keep(`  ${oneLine(why)}; still trying, the operation goes on`),
      },
    );
    current = response.operation ?? current;
    show(current);
  }
  progress.clear();
  session.goesOn = undefined;
  return current;
}

function progressText(operation: Operation, seconds: number): string {
  const step = operation.steps.find(({ state }) => state === OperationStepState.RUNNING)?.name;
  const undoing = operation.state === OperationState.UNDOING ? 'undoing: ' : '';
  const doing = step ?? (operation.state === OperationState.PENDING ? 'waiting to begin' : 'working');
  const message = operation.message === '' ? '' : ` - ${oneLine(operation.message)}`;
  return `  ${undoing}${doing} ${operation.progressPercent}% (${formatSeconds(seconds)})${message}`;
}

export function operationError(operation: Operation, doing: string): CliError {
  const cancelled = operation.state === OperationState.CANCELLED;
  const info = operation.error;
  const reason = info?.reason || (cancelled ? 'CANCELLED' : 'FAILED');
  const failed = operation.steps.find(({ state }) => state === OperationStepState.FAILED)?.name;
  const fallback = cancelled ? 'the operation was cancelled' : 'the operation failed';
  return new CliError({
    exit: EXIT.failed,
    reason,
    what: doing === '' ? `operation ${operation.id} did not succeed` : `cannot ${doing}`,
    why: [
      `${failed === undefined ? '' : `step ${failed}: `}${info?.message || fallback} (${reason})`,
      ...(info?.fields ?? []).map((f) => `${f.field}: ${f.problem}, expected ${f.expected}`),
    ],
    hint: info?.hint || `busbar operation get ${operation.id} shows its steps`,
    fields: info?.fields ?? [],
  });
}
