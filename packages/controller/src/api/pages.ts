// SPDX-License-Identifier: Apache-2.0
import { z } from 'zod';
import { invalid } from './validation.ts';

export const PAGE_SIZE_DEFAULT = 100;
export const PAGE_SIZE_MAX = 1000;

export const pageFields = {
  pageSize: z.number().int('0 to 1000').min(0, '0 to 1000').max(PAGE_SIZE_MAX, '0 to 1000'),
  pageToken: z.string().max(512, 'the nextPageToken of the page before'),
};

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
  const slice = items.slice(start, start + size);
  const last = slice.at(-1);
  const more = start + size < items.length && last !== undefined;
  return { items: slice, nextPageToken: more ? Buffer.from(`k:${keyOf(last)}`).toString('base64url') : '' };
}

/** For what is listed by age. Create revisions only grow; padded so that text order is number order. */
export function creationKey(entry: { readonly id: string; readonly createRevision: bigint }): string {
  return `${String(entry.createRevision).padStart(20, '0')}/${entry.id}`;
}

function decodeToken(token: string): string {
  const text = Buffer.from(token, 'base64url').toString();
  if (!text.startsWith('k:')) {
    throw invalid([
      { field: 'pageToken', problem: `is ${JSON.stringify(token)}`, expected: 'the nextPageToken of the page before' },
    ]);
  }
  return text.slice(2);
}
