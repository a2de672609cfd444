// SPDX-License-Identifier: Apache-2.0
/** `operation cancel`: asks, waits for how it ends, and says why when it was too late. */
import {
  CancelOperationResponse,
  type Operation,
  OperationServiceDefinition,
  OperationState,
  OperationStepState,
} from '@busbar/proto/gen/busbar/v1/operation';
import { CliError, EXIT } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { print } from '../output/print.ts';
import { present } from './resource.ts';
import { follow, operationError } from './wait.ts';

export async function runCancel(session: Session, id: string, options: { readonly wait?: boolean }): Promise<void> {
  session.doing = `cancel operation ${id}`;
  const api = await session.api();
  const response = await api.call(OperationServiceDefinition, (client, callOptions) =>
    client.cancelOperation({ operation: id }, callOptions),
  );
  const asked = present(response.operation, `operation ${id}`);
  const operation = options.wait === false ? asked : await follow(session, api, asked);
  if (operation.state === OperationState.SUCCEEDED) throw tooLate(operation);
  if (operation.state === OperationState.FAILED) throw operationError(operation, session.doing);
  const text =
    options.wait === false ? `is asked to stop; busbar operation log -f ${id} shows how it ends` : 'cancelled';
  await print(session, {
    json: () => CancelOperationResponse.toJSON({ operation }),
    names: () => [`operation/${id}`],
    table: () => `operation/${id} ${text}\n`,
  });
}

function tooLate(operation: Operation): CliError {
  const done = operation.steps.filter(({ state }) => state === OperationStepState.DONE).map(({ name }) => name);
  return new CliError({
    exit: EXIT.conflict,
    reason: 'TOO_LATE',
    what: `cannot cancel operation ${operation.id}`,
    why: [`it was too late to turn back, and it has succeeded (steps done: ${done.join(', ')})`],
    hint: 'to take back what it did, ask for the opposite',
  });
}
