// SPDX-License-Identifier: Apache-2.0
/** `operation log`: what an operation did so far, and with --follow what it does until it ends. */
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { type Operation, OperationServiceDefinition, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { CliError, EXIT } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { oneLine } from '../output/format.ts';
import { printElement } from '../output/print.ts';
import { streamChanges } from '../resource/stream.ts';
import { ENDED, type LogLine, logLines } from './log-lines.ts';
import { changes, operations } from './resource.ts';
import { operationError } from './wait.ts';

export async function runOperationLog(session: Session, id: string, follow: boolean): Promise<void> {
  session.doing = `show the log of operation ${id}`;
  const api = await session.api();
  let last = await operations.get(api, id);
  await show(session, undefined, last);
  if (!follow) return;
  session.goesOn = { what: 'the operation goes on', hint: `busbar operation cancel ${last.id} stops it` };
  if (!ENDED.has(last.state)) {
    for await (const { change, item } of streamChanges(session, api, only(last.id), {})) {
      if (change === ChangeKind.DELETE) throw gone(last.id);
      // Right after a controller died, the next one may show an older state.
      if (item === undefined || item.revision < last.revision) continue;
      await show(session, last, item);
      last = item;
      if (ENDED.has(last.state)) break;
    }
  }
  session.goesOn = undefined;
  if (last.state !== OperationState.SUCCEEDED) throw operationError(last, '');
}

function only(operation: string): Pick<typeof operations, 'watch'> {
  return {
    async watch(api, revision, options) {
      const { client, address, failed } = await api.open(OperationServiceDefinition);
      return { address, failed, changes: changes(client.watchOperations({ revision, operation }, options)) };
    },
  };
}

async function show(session: Session, before: Operation | undefined, now: Operation): Promise<void> {
  for (const line of logLines(before, now, session.io.now())) {
    await printElement(session, { json: () => toJson(line), line: () => render(line) });
  }
}

function render({ time, step, text }: LogLine): string {
  return `${(time?.toISOString() ?? '-').padEnd(24)}  ${step === '' ? '' : `${step}: `}${oneLine(text)}`;
}

function toJson({ time, step, text }: LogLine): unknown {
  return { time: time?.toISOString() ?? null, step, text };
}

function gone(id: string): CliError {
  return new CliError({
    exit: EXIT.notFound,
    reason: 'OPERATION_NOT_FOUND',
    what: `cannot follow operation ${id} further`,
    why: ['it is no longer kept: operations that have ended are forgotten after a day'],
    hint: '',
  });
}
