// SPDX-License-Identifier: Apache-2.0
import {
  CancelOperationResponse,
  GetOperationResponse,
  OperationServiceDefinition,
  OperationState,
} from '@busbar/proto/gen/busbar/v1/operation';
import type { Command } from 'commander';
import { examples, getOptions, listOptions } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { print } from '../output/print.ts';
import { type ListOptions, runGet, runList } from '../resource/resource.ts';
import { type OperationFilter, operations, present } from './resource.ts';
import { follow, operationError } from './wait.ts';

export function define(noun: Command, session: Session): void {
  const id = '2f1c…';
  examples(noun, ['busbar operation list --active', `busbar operation wait ${id}`, `busbar operation cancel ${id}`]);
  const list = listOptions(
    noun.command('list').alias('ls').description('Operations, newest first; ended ones are kept for a day.'),
  )
    .option('--active', 'only those that have not ended')
    .option('--target <id>', 'only those on the resource with this id');
  examples(list, ['busbar operation list', 'busbar operation list --active --watch']).action(
    (options: ListOptions & OperationFilter) => runList(session, operations, options, options),
  );
  examples(getOptions(noun.command('get <operation>').description('One operation; -o yaml shows its steps.')), [
    `busbar operation get ${id} -o yaml`,
  ]).action((name: string, options: ListOptions) => runGet(session, operations, name, options));
  examples(noun.command('wait <operation>').description('Waits for the end; fails when the operation failed.'), [
    `busbar operation wait ${id}`,
    `busbar operation wait ${id} --timeout 5min`,
  ]).action((name: string) => wait(session, name));
  examples(noun.command('cancel <operation>').description('Asks an operation to stop and to undo what it did.'), [
    `busbar operation cancel ${id}`,
  ]).action((name: string) => cancel(session, name));
}

async function wait(session: Session, id: string): Promise<void> {
  session.doing = `wait for operation ${id}`;
  const api = await session.api();
  const operation = await follow(session, api, await operations.get(api, id));
  if (operation.state !== OperationState.SUCCEEDED) throw operationError(operation, '');
  await print(session, {
    json: () => GetOperationResponse.toJSON({ operation }),
    table: () => `operation/${id} succeeded\n`,
  });
}

async function cancel(session: Session, id: string): Promise<void> {
  session.doing = `cancel operation ${id}`;
  const api = await session.api();
  const response = await api.call(OperationServiceDefinition, (client, options) =>
    client.cancelOperation({ operation: id }, options),
  );
  present(response.operation, `operation ${id}`);
  await print(session, {
    json: () => CancelOperationResponse.toJSON(response),
    table: () => `operation/${id} is asked to stop; busbar operation wait ${id} shows how it ends\n`,
  });
}
