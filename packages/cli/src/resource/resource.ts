// SPDX-License-Identifier: Apache-2.0
/** What the commands of every noun share: how to list, get and watch it, and how its table looks. */

import type { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import type { CallOptions } from 'nice-grpc';
import type { Api, Opened } from '../api/api.ts';
import type { Session } from '../cli/session.ts';
import { print, tableStyle } from '../output/print.ts';
import { type Column, renderTable } from '../output/table.ts';
import { type Listing, type ListOptions, makeListing } from './listing.ts';

export type { ListOptions } from './listing.ts';

export interface Page<T> {
  readonly items: readonly T[];
  readonly nextPageToken: string;
  readonly revision: bigint;
}

export interface Change<T> {
  readonly change: ChangeKind;
  readonly item: T | undefined;
  readonly progress: bigint | undefined;
  /** The API's message as JSON. */
  readonly json: unknown;
}

export interface WatchStream<T> {
  readonly address: string;
  readonly changes: AsyncIterable<Change<T>>;
  readonly failed: Opened<never>['failed'];
}

/** What can be listed and watched. */
export interface Listed<T, Filter = object> {
  readonly singular: string;
  readonly plural: string;
  /** Full name of the API's message, e.g. "busbar.v1.Vm": what paths in --columns, --sort and --filter begin at. */
  readonly message: string;
  readonly columns: readonly Column<T>[];
  id(item: T): string;
  name(item: T): string;
  toJson(item: T): unknown;
  list(api: Api, pageToken: string, filter: Filter): Promise<Page<T>>;
  watch(api: Api, revision: bigint, options: CallOptions, filter: Filter): Promise<WatchStream<T>>;
  /** The part of the filter that a watch has to apply itself. */
  matches?(item: T, filter: Filter): boolean;
}

export interface Resource<T, Filter = object> extends Listed<T, Filter> {
  get(api: Api, name: string): Promise<T>;
}

export const PAGE_SIZE = 500;

/** Every page. */
export async function listAll<T, F>(api: Api, resource: Listed<T, F>, filter: F): Promise<Page<T>> {
  const items: T[] = [];
  let revision = 0n;
  let pageToken = '';
  do {
    const page = await resource.list(api, pageToken, filter);
    items.push(...page.items);
    // The first page's: a watch from it also sees what changed while the others were read.
    if (pageToken === '') revision = page.revision;
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return { items, nextPageToken: '', revision };
}

/** As -o name prints it and `busbar wait` takes it. */
export function nameOf<T>(resource: Pick<Listed<T>, 'singular' | 'name'>, item: T): string {
  return `${resource.singular.replaceAll(' ', '-')}/${resource.name(item)}`;
}

export async function runList<T, F>(
  session: Session,
  resource: Listed<T, F>,
  filter: F,
  options: ListOptions,
): Promise<void> {
  session.doing = `list ${wordsOf(resource)}`;
  const listing = await makeListing(session, resource, options);
  const api = await session.api();
  if (options.watch === true) {
    const { runWatch } = await import('./watch.ts');
    return runWatch(session, api, resource, { filter, listing, only: undefined });
  }
  await printList(session, resource, listing, await listAll(api, resource, filter));
}

/** What a list needs to be shown; there may be no way to watch it. */
export type Shown<T> = Pick<Listed<T>, 'singular' | 'plural' | 'message' | 'columns' | 'name' | 'toJson'>;

export async function printList<T>(
  session: Session,
  resource: Shown<T>,
  listing: Listing<T>,
  page: Pick<Page<T>, 'items' | 'revision'>,
): Promise<void> {
  const kept = page.items.filter((item) => listing.keeps(item));
  const items = listing.sorted?.(kept) ?? kept;
  const words = wordsOf(resource);
  const none = listing.filtered && page.items.length > 0 ? `no ${words} match` : `no ${words}`;
  await print(session, {
    // The API's response; the list itself is there also when empty, so that `.vms[]` always works.
    json: () => ({
      [resource.plural]: items.map((item) => resource.toJson(item)),
      ...(page.revision === 0n ? {} : { revision: String(page.revision) }),
    }),
    lines: () => items.map((item) => resource.toJson(item)),
    names: () => items.map((item) => nameOf(resource, item)),
    table() {
      if (items.length === 0) return listing.headers ? `${none}\n` : '';
      return renderTable(listing.columns, items, tableStyle(session), listing.headers);
    },
  });
}

/** "auditRecords" → "audit records". */
function wordsOf({ plural }: Pick<Listed<never>, 'plural'>): string {
  return plural.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

export async function runGet<T, F>(
  session: Session,
  resource: Resource<T, F>,
  name: string,
  options: ListOptions,
): Promise<void> {
  session.doing = `get ${resource.singular} ${name}`;
  const listing = await makeListing(session, resource, options);
  const api = await session.api();
  const item = await resource.get(api, name);
  if (options.watch === true) {
    const { runWatch } = await import('./watch.ts');
    return runWatch(session, api, resource, { filter: {} as F, listing, only: resource.id(item) });
  }
  await print(session, {
    json: () => resource.toJson(item),
    names: () => [nameOf(resource, item)],
    table: () => renderTable(listing.columns, [item], tableStyle(session), listing.headers),
  });
}
