// SPDX-License-Identifier: Apache-2.0
/** Applies checked documents and prints a line for each as it is done. */
import { Operation } from '@busbar/proto/gen/busbar/v1/operation';
import { isTable } from '../cli/output.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import type { Manifest } from '../manifest/parse.ts';
import { print, write } from '../output/print.ts';
import { type ApplyResult, applyAll } from './execute.ts';

export async function runApply(
  session: Session,
  manifests: readonly Manifest[],
  options: ChangeOptions,
): Promise<void> {
  const api = await session.api();
  const dryRun = options.dryRun === true;
  const line = (result: ApplyResult) => {
    if (isTable(session.output)) write(session.io, `${describe(result, dryRun, options.wait === false)}\n`);
  };
  const { results, error } = await applyAll(session, api, manifests, options, line);
  if (!isTable(session.output)) {
    await print(session, {
      json: () => ({ dryRun, results: results.map(toJson) }),
      lines: () => results.map(toJson),
      names: () => results.map(({ kind, name }) => `${kind.toLowerCase()}/${name}`),
      table: () => '',
    });
  }
  if (error !== undefined) throw error;
}

function describe(result: ApplyResult, dryRun: boolean, detached: boolean): string {
  const target = `${result.kind.toLowerCase()}/${result.name}`;
  const changed = result.changed.length === 0 ? '' : ` (${result.changed.join(', ')})`;
  const restart = result.restartNeeded ? `; acts at the next start: busbar vm restart ${result.name}` : '';
  if (result.result === 'unchanged') return `${target} unchanged`;
  if (dryRun) return `${target} would be ${result.result}${changed} (dry run: nothing was changed)`;
  const running = detached && result.operation !== undefined ? `, operation ${result.operation.id} goes on` : '';
  return `${target} ${result.result}${changed}${restart}${running}`;
}

function toJson(result: ApplyResult): unknown {
  const { operation, ...rest } = result;
  return operation === undefined ? rest : { ...rest, operation: Operation.toJSON(operation) };
}
