// SPDX-License-Identifier: Apache-2.0
import type { Revision } from '@busbar/core/ids';
import { describe, expect, test } from 'vitest';
import type { ClusterStore } from '../cluster-store.ts';
import { drain, put, soon, waitUntil } from '../examine.fixture.ts';

const never = new AbortController().signal;

/** The part of the contract that is about health and room: ../conformance.ts runs it for every implementation. */
export function roomConformance(
  begin: () => { readonly store: ClusterStore; readonly other: ClusterStore; readonly key: string },
): void {
  test('ping tells that a quorum answers', async () => {
    await begin().store.ping(2_000);
  });

  describe('room', () => {
    test('in use grows with what is written, also over the same key, and falls when that is forgotten', async () => {
      const { store, other, key } = begin();
      const before = await store.usage();
      expect(before.fileBytes).toBeGreaterThanOrEqual(before.inUseBytes);
      const value = (n: number) => String(n).repeat(256 * 1024);
      for (let n = 0; n < 8; n++) await put(store, key, value(n));
      const last = await put(store, key, value(8));
      // etcd tells the size as of its last commit, a tenth of a second ago.
      await waitUntil(async () => (await store.usage()).inUseBytes > before.inUseBytes + 2_000_000);
      expect((await other.usage()).fileBytes).toBeGreaterThan(before.inUseBytes + 2_000_000);
      await store.compact(last);
      // etcd counts freed pages as used until something is written.
      await waitUntil(async () => {
        await put(store, `${key}-pulse`, '');
        return (await store.usage()).inUseBytes < before.inUseBytes + 1_000_000;
      });
      expect((await store.get(key)).value?.value).toBe(value(8));
    });

    test('is made once: again, further back and by somebody else is a success; a watch from before it says so', async () => {
      const { store, other, key } = begin();
      const first = await put(store, key, '1');
      await put(store, key, '2');
      const last = await put(store, key, '3');
      await store.compact(last);
      await other.compact(last);
      await store.compact((last - 1n) as Revision);
      expect(await soon(drain(store.watch(key, first, never)))).toEqual([{ kind: 'compacted' }]);
    });
  });
}
