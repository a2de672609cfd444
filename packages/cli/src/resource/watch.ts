// SPDX-License-Identifier: Apache-2.0
/**
 * Changes as they happen. A watch outlives the controller it began at: it resumes from the last revision at the next
 * one. Where the stream cannot resume without a gap (RESYNC) it begins anew with everything that exists.
 */
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import type { Metadata } from 'nice-grpc';
import { type Api, isUnavailable } from '../api/api.ts';
import { UnreachableError } from '../api/rpc-error.ts';
import type { Session } from '../cli/session.ts';
import { note, printElement, tableStyle, write } from '../output/print.ts';
import { tableLines } from '../output/table.ts';
import { type Listed, listAll } from './resource.ts';

/** A cluster without any controller for this long is worth ending the watch with an error. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 500;

interface WatchScope<F> {
  readonly filter: F;
  /** Only the resource with this id. */
  readonly only: string | undefined;
}

export async function runWatch<T, F>(
  session: Session,
  api: Api,
  resource: Listed<T, F>,
  scope: WatchScope<F>,
): Promise<void> {
  session.doing = `watch ${resource.plural}`;
  session.endless = true;
  const shown = (item: T) =>
    (scope.only === undefined || resource.id(item) === scope.only) && (resource.matches?.(item, scope.filter) ?? true);
  const table = await tableOf(session, api, resource, scope, shown);
  let revision = 0n;
  let lostAt: number | undefined;
  for (;;) {
    let trailer: Metadata | undefined;
    let failed: ((error: unknown, trailer: Metadata | undefined) => unknown) | undefined;
    try {
      const options = { signal: session.signal, onTrailer: (t: Metadata) => (trailer = t) };
      const stream = await resource.watch(api, revision, options, scope.filter);
      failed = stream.failed;
      for await (const change of stream.changes) {
        if (lostAt !== undefined) note(session.io, `watch goes on at ${stream.address}`);
        lostAt = undefined;
        if (change.change === ChangeKind.RESYNC) {
          note(session.io, 'watch restarted: changes in between may be missing');
          revision = 0n;
          break;
        }
        if (change.progress !== undefined) revision = change.progress;
        const { item } = change;
        if (item === undefined) continue;
        if (change.change === ChangeKind.DELETE) {
          if (scope.only !== undefined && resource.id(item) !== scope.only) continue;
          await printElement(session, {
            json: () => change.json,
            line: () => `${resource.singular}/${resource.name(item)} deleted`,
          });
          if (scope.only !== undefined) return;
        } else if (shown(item)) {
          await printElement(session, { json: () => change.json, line: () => table(item) });
        }
      }
    } catch (error) {
      session.signal.throwIfAborted();
      const described = failed === undefined ? error : failed(error, trailer);
      if (!isUnavailable(described) && !(described instanceof UnreachableError)) throw described;
      lostAt ??= performance.now();
      if (performance.now() - lostAt > PATIENCE_MS) throw described;
      note(session.io, `watch interrupted (${described.message}), trying the next controller`);
    }
    await api.pause(RETRY_MS);
  }
}

/** Prints the header with the widths of what exists, and returns what makes a line. */
async function tableOf<T, F>(
  session: Session,
  api: Api,
  resource: Listed<T, F>,
  scope: WatchScope<F>,
  shown: (item: T) => boolean,
): Promise<(item: T) => string> {
  if (session.output !== 'table') return () => '';
  const { items } = await listAll(api, resource, scope.filter);
  const style = tableStyle(session.io);
  const lines = tableLines(resource.columns, items.filter(shown), style);
  write(session.io, `${lines.header}\n`);
  return (item) => lines.line(item, session.io.now());
}
