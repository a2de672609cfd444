// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { page } from './pages.ts';

/** Goal: no page is more work than a moment, whatever it holds, and the pages of a list are the list. */
interface Item {
  readonly id: string;
  readonly storedLength: number;
}
const all = (items: readonly Item[], pageSize: number) => {
  const pages: (readonly Item[])[] = [];
  let pageToken = '';
  do {
    const next = page(items, ({ id }) => id, { pageSize, pageToken });
    pages.push(next.items);
    pageToken = next.nextPageToken;
  } while (pageToken !== '');
  return pages;
};
const lengthOf = (items: readonly Item[]) => items.reduce((sum, { storedLength }) => sum + storedLength, 0);

it('ends a page of large items early, and goes on with the next', () => {
  const items = Array.from({ length: 1_000 }, (_, i) => ({
    id: `vm-${String(i).padStart(4, '0')}`,
    storedLength: 90_000,
  }));
  const pages = all(items, 1_000);
  expect(pages.flat()).toEqual(items);
  for (const each of pages) expect(lengthOf(each)).toBeLessThanOrEqual(4 * 1024 ** 2);
});

it('holds each item once, in order, whatever their sizes, and never none', () => {
  const sizes = fc.array(fc.integer({ min: 0, max: 6 * 1024 ** 2 }), { maxLength: 60 });
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 50 }), (lengths, pageSize) => {
      const items = lengths.map((storedLength, i) => ({ id: String(i).padStart(3, '0'), storedLength }));
      const pages = all(items, pageSize);
      expect(pages.flat()).toEqual(items);
      for (const each of pages.slice(0, -1)) expect(each.length).toBeGreaterThan(0);
      for (const each of pages) {
        expect(each.length).toBeLessThanOrEqual(pageSize);
        if (each.length > 1) expect(lengthOf(each)).toBeLessThanOrEqual(4 * 1024 ** 2);
      }
    }),
  );
});
