// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { z } from 'zod';
import { text } from '../bounds/schema.ts';
import type { Kind, RecordOf } from '../records/kinds.ts';
import type { Entry, RecordPlace, Table } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { invalid } from './validation.ts';

export const PAGE_SIZE_DEFAULT = 100;
export const PAGE_SIZE_MAX = 1000;

export const pageFields = {
  pageSize: z.number().int('0 to 1000').min(0, '0 to 1000').max(PAGE_SIZE_MAX, '0 to 1000'),
  pageToken: text(512, 'the nextPageToken of the page before'),
};

/**
 * A page of large items ends early. To show and to encode them holds up everybody: a thousand VMs with 60 KB of user data each
 * took 400 ms, 4 Mi characters take some 20 ms.
 */
const PAGE_LENGTH_MAX = 4 * 1024 ** 2;

/**
 * A page of an ordered list. The token names the last key given out, so that a list that changes meanwhile
 * neither repeats nor skips what was there all the time.
 */
export function page<T>(
  items: readonly T[],
  keyOf: (item: T) => string,
  request: { readonly pageSize: number; readonly pageToken: string },
  descending = false,
): { readonly items: readonly T[]; readonly nextPageToken: string } {
  const size = request.pageSize || PAGE_SIZE_DEFAULT;
  let start = 0;
  if (request.pageToken !== '') {
    const after = decodeToken(request.pageToken);
    start = items.findIndex((item) => (descending ? keyOf(item) < after : keyOf(item) > after));
    if (start < 0) start = items.length;
  }
  const slice = withinLength(items.slice(start, start + size));
  const last = slice.at(-1);
  const more = start + slice.length < items.length && last !== undefined;
  return { items: slice, nextPageToken: more ? encodeToken(keyOf(last)) : '' };
}

/** As many as there is room for; one at least, or a list would have no next page. */
function withinLength<T>(items: readonly T[]): readonly T[] {
  let length = 0;
  const end = items.findIndex((item) => {
    length += (item as { readonly storedLength?: number }).storedLength ?? 0;
    return length > PAGE_LENGTH_MAX;
  });
  return end < 0 ? items : items.slice(0, Math.max(1, end));
}

/** Records read between two turns of the event loop: some 3 ms of work. */
const READ_AT_ONCE = 300;

/** A page of records of a kind, the newest first. Reads no more of them than it has to, a few at a time. */
export async function pageByAge<K extends Kind>(
  { tables }: ClusterView,
  kind: K,
  request: { readonly pageSize: number; readonly pageToken: string },
  clock: Clock,
  matches: (record: RecordOf<K>) => boolean,
): Promise<{ readonly items: readonly Entry<RecordOf<K>>[]; readonly nextPageToken: string }> {
  const table: Table<K> = tables[kind];
  const size = request.pageSize || PAGE_SIZE_DEFAULT;
  const after = request.pageToken === '' ? null : decodeToken(request.pageToken);
  const found: Entry<RecordOf<K>>[] = [];
  const places = table.placesByAge();
  for (let i = places.length - 1, read = 0; i >= 0 && found.length <= size; i--) {
    const place = places[i] as RecordPlace;
    if (after !== null && creationKey(place) >= after) continue;
    if (++read % READ_AT_ONCE === 0) await clock.turn();
    const entry = table.get(place.id);
    if (entry !== undefined && matches(entry.record)) found.push(entry);
  }
  const items = found.slice(0, size);
  const last = items.at(-1);
  return { items, nextPageToken: found.length > size && last !== undefined ? encodeToken(creationKey(last)) : '' };
}

function encodeToken(key: string): string {
  return Buffer.from(`k:${key}`).toString('base64url');
}

/** For what is listed by age. Create revisions only grow; padded so that text order is number order. */
export function creationKey(entry: { readonly id: string; readonly createRevision: bigint }): string {
  return `${String(entry.createRevision).padStart(20, '0')}/${entry.id}`;
}

function decodeToken(token: string): string {
  const text = Buffer.from(token, 'base64url').toString();
  // The decoder skips what is no base64 and mends what is no UTF-8: only what we could have given out is taken.
  if (!text.startsWith('k:') || encodeToken(text.slice(2)) !== token) {
    throw invalid([
      { field: 'pageToken', problem: `is ${JSON.stringify(token)}`, expected: 'the nextPageToken of the page before' },
    ]);
  }
  return text.slice(2);
}
