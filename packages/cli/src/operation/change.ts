// SPDX-License-Identifier: Apache-2.0
/** How every changing command ends: dry-run, detached with the operation's id, or waited for. */
import type { Operation } from '@busbar/proto/gen/busbar/v1/operation';
import type { Api } from '../api/api.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { print } from '../output/print.ts';
import { waitForOperation } from './wait.ts';

export interface ChangeSpec<R extends object> {
  /** The infinitive after "cannot", e.g. `start VM "web"`. */
  readonly doing: string;
  /** e.g. "vm/web". */
  readonly target: string;
  /** e.g. "started". */
  readonly done: string;
  /** The API's response, which is what -o json prints. */
  readonly message: { toJSON(message: R): unknown };
  send(api: Api): Promise<R>;
  /** More to say about a dry run, e.g. the placement. */
  preview?(response: R): string;
  /** More to say once it is done, a line each. */
  also?(response: R): string;
  /** What is said instead, where "TARGET DONE" is not what happened. */
  text?(response: R): string | undefined;
  /** Reads again what the response holds, once the operation has ended. */
  refresh?(api: Api, response: R): Promise<R>;
}

export async function runChange<R extends object>(
  session: Session,
  options: ChangeOptions,
  spec: ChangeSpec<R>,
): Promise<void> {
  session.doing = spec.doing;
  const api = await session.api();
  if (options.dryRun !== true) {
    session.goesOn = {
      what: 'the cluster may have begun with it',
      hint: 'busbar operation list --active shows what goes on',
    };
  }
  let response = await spec.send(api);
  session.goesOn = undefined;
  const json = () => spec.message.toJSON(response);
  const names = () => [spec.target];
  if (options.dryRun === true) {
    const table = () =>
      spec.text?.(response) ??
      `${spec.target} would be ${spec.done} (dry run: nothing was changed)\n${spec.preview?.(response) ?? ''}`;
    return print(session, { json, names, table });
  }
  const operation = operationOf(response);
  if (operation !== undefined && options.wait === false) {
    return print(session, { json, names: () => [`operation/${operation.id}`], table: () => `${operation.id}\n` });
  }
  if (operation !== undefined) {
    const ended = await waitForOperation(session, api, operation);
    response = { ...((await spec.refresh?.(api, response)) ?? response), operation: ended };
  }
  const done = () => `${spec.target} ${spec.done}\n${spec.also?.(response) ?? ''}`;
  await print(session, { json, names, table: () => spec.text?.(response) ?? done() });
}

/** Changes that are done at once answer without one. */
function operationOf(response: object): Operation | undefined {
  return (response as { readonly operation?: Operation }).operation;
}
