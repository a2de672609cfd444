// SPDX-License-Identifier: Apache-2.0
import { GetOperationResponse, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import type { Command } from 'commander';
import { examples, getOptions, listOptions } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { print } from '../output/print.ts';
import { type ListOptions, runGet, runList } from '../resource/resource.ts';
import { type OperationFilter, operations } from './resource.ts';
import { follow, operationError } from './wait.ts';

export function define(noun: Command, session: Session): void {
  const id = '2f1c…';
  examples(noun, ['busbar operation list --active', `busbar operation log -f ${id}`, `busbar operation cancel ${id}`]);
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
  const log = noun
    .command('log <operation>')
    .alias('logs')
    .description('What an operation did: its steps and what it waited for.')
    .option('-f, --follow', 'go on until it ends; fails when the operation fails');
  examples(log, [`busbar operation log ${id}`, `busbar operation log -f ${id}`]).action(
    async (name: string, options: { follow?: boolean }) => {
      const { runOperationLog } = await import('./log.ts');
      await runOperationLog(session, name, options.follow === true);
    },
  );
  const cancel = noun
    .command('cancel <operation>')
    .description('Asks an operation to stop and to undo what it did, and waits until it has.')
    .option('--no-wait', 'only ask');
  examples(cancel, [`busbar operation cancel ${id}`]).action(async (name: string, options: { wait?: boolean }) => {
    const { runCancel } = await import('./cancel.ts');
    await runCancel(session, name, options);
  });
}

async function wait(session: Session, id: string): Promise<void> {
  session.doing = `wait for operation ${id}`;
  const api = await session.api();
  const operation = await follow(session, api, await operations.get(api, id));
  if (operation.state !== OperationState.SUCCEEDED) throw operationError(operation, '');
  await print(session, {
    json: () => GetOperationResponse.toJSON({ operation }),
    names: () => [`operation/${id}`],
    table: () => `operation/${id} succeeded\n`,
  });
}
