// SPDX-License-Identifier: Apache-2.0
/** Prints changes as they happen, until interrupted or until the one resource that is watched is gone. */
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import type { Api } from '../api/api.ts';
import { isTable } from '../cli/output.ts';
import type { Session } from '../cli/session.ts';
import { note, printElement, tableStyle, write } from '../output/print.ts';
import { tableLines } from '../output/table.ts';
import type { Listing } from './listing.ts';
import { type Change, type Listed, listAll, nameOf } from './resource.ts';
import { streamChanges } from './stream.ts';

interface WatchScope<T, F> {
  readonly filter: F;
  readonly listing: Listing<T>;
  /** Only the resource with this id. */
  readonly only: string | undefined;
}

export async function runWatch<T, F>(
  session: Session,
  api: Api,
  resource: Listed<T, F>,
  scope: WatchScope<T, F>,
): Promise<void> {
  session.doing = `watch ${resource.plural}`;
  session.endless = true;
  const { listing } = scope;
  const mine = (item: T) => scope.only === undefined || resource.id(item) === scope.only;
  const wanted = (item: T) => mine(item) && (resource.matches?.(item, scope.filter) ?? true) && listing.keeps(item);
  const line = await lineOf(session, api, resource, scope, wanted);
  const show = (change: Change<T>, item: T) =>
    printElement(session, { json: () => change.json, line: () => line(item), name: () => nameOf(resource, item) });
  /** Those that the reader has seen as wanted. */
  const shown = new Set<string>();
  // With an order everything that exists is kept until it is complete; what changes later comes as it comes.
  let first: Map<T, Change<T>> | undefined = listing.sorted === undefined ? undefined : new Map();
  for await (const change of streamChanges(session, api, resource, scope.filter)) {
    const { item } = change;
    if (change.change === ChangeKind.RESYNC) note(session.io, 'watch restarted: changes in between may be missing');
    if (change.change === ChangeKind.PROGRESS && first !== undefined) {
      for (const one of listing.sorted?.([...first.keys()]) ?? []) await show(first.get(one) as Change<T>, one);
      first = undefined;
    }
    if (item === undefined || !mine(item)) continue;
    const id = resource.id(item);
    if (change.change === ChangeKind.DELETE) {
      const known = shown.delete(id);
      if (listing.filtered && !known) continue;
      await printElement(session, {
        json: () => change.json,
        line: () => `${nameOf(resource, item)} deleted`,
        name: () => nameOf(resource, item),
      });
      if (scope.only !== undefined) return;
    } else if (wanted(item)) {
      shown.add(id);
      if (first === undefined) await show(change, item);
      else first.set(item, change);
    } else if (shown.delete(id)) {
      // It no longer matches: shown once more as it is now, or the reader would believe the last line for ever.
      await show(change, item);
    }
  }
}

/** Prints the header with the widths of what exists, and returns what makes a line. */
async function lineOf<T, F>(
  session: Session,
  api: Api,
  resource: Listed<T, F>,
  scope: WatchScope<T, F>,
  wanted: (item: T) => boolean,
): Promise<(item: T) => string> {
  if (!isTable(session.output)) return () => '';
  const { items } = await listAll(api, resource, scope.filter);
  const lines = tableLines(scope.listing.columns, items.filter(wanted), tableStyle(session));
  if (scope.listing.headers) write(session.io, `${lines.header}\n`);
  return (item) => lines.line(item, session.io.now());
}
