// SPDX-License-Identifier: Apache-2.0
import { systemClock } from '@busbar/core/clock/clock';
import type { BusbarError } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ClusterStore } from './cluster-store.ts';
import {
  collect,
  drain,
  nextEvents,
  put,
  putLeased,
  rejection,
  revisionOf,
  soon,
  summary,
  waitUntil,
} from './examine.fixture.ts';
import { roomConformance } from './room/conformance.ts';

/** What an implementation brings along to be examined. */
export interface StoreUnderTest {
  /** Two clients of the same truth. */
  readonly store: ClusterStore;
  readonly other: ClusterStore;
  /** A client whose watches buffer at most `maxBufferedEvents` events. */
  client(options: { readonly maxBufferedEvents: number }): ClusterStore;
  compact(revision: Revision): Promise<void>;
  close(): Promise<void>;
}

const never = new AbortController().signal;

/** The contract of ClusterStore, for every implementation. Each test works below a prefix of its own. */
export function clusterStoreConformance(name: string, factory: () => Promise<StoreUnderTest>): void {
  describe(`${name}: ClusterStore`, () => {
    let world: StoreUnderTest;
    let store: ClusterStore;
    let other: ClusterStore;
    let serial = 0;
    const newPrefix = () => `conformance/${++serial}/`;

    roomConformance(() => ({ store, other, key: `${newPrefix()}large` }));
    beforeAll(async () => {
      world = await factory();
      ({ store, other } = world);
    });
    afterAll(() => world?.close());

    describe('reading and writing', () => {
      test('a missing key reads as null, at a revision', async () => {
        const read = await store.get(`${newPrefix()}none`);
        expect(read.value).toBeNull();
        expect(read.revision).toBeGreaterThanOrEqual(1n);
      });

      test('a put is seen by every client at once, with its revisions', async () => {
        const key = `${newPrefix()}a`;
        const first = await put(store, key, 'one');
        const second = await put(other, key, 'two');
        const read = await store.get(key);
        expect(read.value).toEqual({ key, value: 'two', createRevision: first, modRevision: second });
        expect(read.revision).toBeGreaterThanOrEqual(second);
      });

      test('values keep every character', async () => {
        const key = `${newPrefix()}ключ/\u{1f50c}\0`;
        const value = '\ufeff\0 äß€ \u{10ffff}"\n';
        await put(store, key, value);
        expect((await other.get(key)).value).toMatchObject({ key, value });
      });

      test('an empty value is a value', async () => {
        const key = `${newPrefix()}empty`;
        await put(store, key, '');
        expect((await other.get(key)).value?.value).toBe('');
      });

      test('a deleted key starts a new life', async () => {
        const key = `${newPrefix()}a`;
        const first = await put(store, key, '1');
        await store.txn({ compare: [], writes: [{ kind: 'delete', key }] });
        expect((await store.get(key)).value).toBeNull();
        const second = await put(store, key, '2');
        expect(second).toBeGreaterThan(first);
        expect((await store.get(key)).value?.createRevision).toBe(second);
      });

      test('a write that changes nothing makes no revision', async () => {
        const prefix = newPrefix();
        const before = (await store.get(`${prefix}x`)).revision;
        const result = await store.txn({ compare: [], writes: [{ kind: 'delete', key: `${prefix}x` }] });
        expect(result).toEqual({ succeeded: true, revision: before });
      });
    });

    describe('transactions', () => {
      test('all comparisons must hold; then all writes share one revision', async () => {
        const prefix = newPrefix();
        const [a, b, c] = [`${prefix}a`, `${prefix}b`, `${prefix}c`];
        const revision = await put(store, a, '1');
        const refused = await store.txn({
          compare: [
            { target: 'mod', key: a, revision },
            { target: 'create', key: b, revision },
          ],
          writes: [{ kind: 'put', key: c, value: '!' }],
        });
        expect(refused.succeeded).toBe(false);
        expect(refused.revision).toBeGreaterThanOrEqual(revision);
        expect((await store.get(c)).value).toBeNull();
        const done = await store.txn({
          compare: [
            { target: 'mod', key: a, revision },
            { target: 'create', key: a, revision },
            { target: 'mod', key: b, revision: 0n as Revision },
            { target: 'create', key: b, revision: 0n as Revision },
          ],
          writes: [
            { kind: 'delete', key: a },
            { kind: 'put', key: b, value: 'b' },
            { kind: 'put', key: c, value: 'c' },
          ],
        });
        expect(done.succeeded).toBe(true);
        const left = (await store.list(prefix)).value;
        expect(left.map(({ key, modRevision }) => [key, modRevision])).toEqual([
          [b, done.revision],
          [c, done.revision],
        ]);
      });

      test('create and mod revision are told apart', async () => {
        const key = `${newPrefix()}a`;
        const created = await put(store, key, '1');
        const changed = await put(store, key, '2');
        const holds = async (target: 'create' | 'mod', revision: Revision) =>
          (await store.txn({ compare: [{ target, key, revision }], writes: [] })).succeeded;
        expect(await holds('create', created)).toBe(true);
        expect(await holds('create', changed)).toBe(false);
        expect(await holds('mod', created)).toBe(false);
        expect(await holds('mod', changed)).toBe(true);
      });

      test('concurrent counters lose no step', async () => {
        const key = `${newPrefix()}counter`;
        const workers = 4;
        const steps = 8;
        const work = async (client: ClusterStore) => {
          for (let done = 0; done < steps; ) {
            const { value } = await client.get(key);
            const result = await client.txn({
              compare: [{ target: 'mod', key, revision: value?.modRevision ?? (0n as Revision) }],
              writes: [{ kind: 'put', key, value: String(Number(value?.value ?? 0) + 1) }],
            });
            if (result.succeeded) done++;
          }
        };
        await Promise.all(Array.from({ length: workers }, (_, i) => work(i % 2 === 0 ? store : other)));
        expect((await store.get(key)).value?.value).toBe(String(workers * steps));
      });

      test('requests that etcd would refuse or change are refused clearly', async () => {
        const prefix = newPrefix();
        const puts = (count: number) =>
          Array.from({ length: count }, (_, i) => ({ kind: 'put', key: `${prefix}${i}`, value: '' }) as const);
        const refusal = async (promise: Promise<unknown>) => (await rejection(promise)).kind;
        const big = await rejection(put(store, `${prefix}big`, 'x'.repeat(1_000_000)));
        expect(big.kind).toBe('invalid');
        expect(big.message).toMatch(/1000\d+ bytes is larger than the store's limit of \d+ bytes/);
        expect(await refusal(store.txn({ compare: [], writes: puts(129) }))).toBe('invalid');
        expect(await refusal(store.txn({ compare: [], writes: [...puts(1), ...puts(1)] }))).toBe('invalid');
        expect(await refusal(put(store, '', 'x'))).toBe('invalid');
        expect(await refusal(put(store, `${prefix}\ud800`, 'x'))).toBe('invalid');
        expect(await refusal(put(store, `${prefix}x`, '\udc00'))).toBe('invalid');
        expect(await refusal(store.get(''))).toBe('invalid');
        expect((await store.list(prefix)).value).toEqual([]);
        expect((await store.txn({ compare: [], writes: puts(128) })).succeeded).toBe(true);
      });
    });

    describe('lists', () => {
      test('byte order, limits, continuation, and nothing outside the prefix', async () => {
        const prefix = newPrefix();
        const names = ['', '\0', '0', 'a', 'a/', 'a0', 'z~', '\x7f', '\u00ff', '\uffee', '\u{10000}'];
        for (const name of names.toReversed()) await put(store, prefix + name, name);
        for (const outside of [prefix.slice(0, -1), `${prefix.slice(0, -1)}0`]) await put(store, outside, '');
        const expected = names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
        const values = async (options?: { limit?: number; startAfter?: string }) =>
          (await other.list(prefix, options)).value.map(({ value }) => value);
        expect(await values()).toEqual(expected);
        expect(await values({ limit: 3 })).toEqual(expected.slice(0, 3));
        expect(await values({ startAfter: prefix + expected[2] })).toEqual(expected.slice(3));
        expect(await values({ startAfter: `${prefix}a!`, limit: 2 })).toEqual(['a/', 'a0']);
        expect(await values({ startAfter: prefix.slice(0, -1) })).toEqual(expected);
        expect(await values({ startAfter: `${prefix.slice(0, -1)}0` })).toEqual([]);
        expect(await values({ limit: 0 })).toEqual([]);
      });

      test('many keys and large values come whole, at one revision', async () => {
        const prefix = newPrefix();
        const value = 'v'.repeat(12_000);
        const keys = Array.from({ length: 900 }, (_, i) => `${prefix}${String(i).padStart(4, '0')}`);
        let last = 0n as Revision;
        for (let i = 0; i < keys.length; i += 60) {
          const writes = keys.slice(i, i + 60).map((key) => ({ kind: 'put', key, value }) as const);
          last = (await store.txn({ compare: [], writes })).revision;
        }
        const read = await other.list(prefix);
        expect(read.value.map(({ key }) => key)).toEqual(keys);
        expect(read.revision).toBeGreaterThanOrEqual(last);
      });
    });

    describe('watches', () => {
      test('deliver history and present in order, whole revisions, without gap or repeat', async () => {
        const prefix = newPrefix();
        const start = (await store.get(`${prefix}x`)).revision;
        await put(store, `${prefix}a`, '1');
        await put(store, `${prefix.slice(0, -1)}0`, 'outside');
        const batches = collect(other, prefix, start);
        await put(store, `${prefix}b`, '2');
        const both = await store.txn({
          compare: [],
          writes: [
            { kind: 'delete', key: `${prefix}a` },
            { kind: 'put', key: `${prefix}c`, value: '3' },
          ],
        });
        const events = await batches.until((seen) => seen.length >= 4);
        expect(events.slice(0, 2).map(summary)).toEqual([`${prefix}a=1`, `${prefix}b=2`]);
        // The order inside a revision is not promised.
        expect(events.slice(2).map(summary).toSorted()).toEqual([`${prefix}a deleted`, `${prefix}c=3`]);
        expect(events.slice(2).map(revisionOf)).toEqual([both.revision, both.revision]);
        batches.stop();
      });

      test('resume exactly behind any revision', async () => {
        const prefix = newPrefix();
        const revisions: Revision[] = [];
        for (let i = 0; i < 6; i++) revisions.push(await put(store, `${prefix}k`, String(i)));
        for (const [i, after] of revisions.slice(0, -1).entries()) {
          const batches = collect(other, prefix, after);
          const events = await batches.until((seen) => seen.length >= revisions.length - 1 - i);
          expect(events.map(revisionOf)).toEqual(revisions.slice(i + 1));
          batches.stop();
        }
      });

      test('wait for a revision that is still to come', async () => {
        const prefix = newPrefix();
        const now = (await store.get(`${prefix}k`)).revision;
        const batches = collect(other, prefix, (now + 1n) as Revision);
        await put(store, `${prefix}k`, 'now + 1');
        await put(store, `${prefix}k`, 'now + 2');
        const events = await batches.until((seen) => seen.length >= 1);
        expect(events.map(summary)).toEqual([`${prefix}k=now + 2`]);
        batches.stop();
      });

      test('end when their signal aborts, before or while they run', async () => {
        const abort = new AbortController();
        const ended = drain(store.watch(newPrefix(), 0n as Revision, AbortSignal.abort()));
        expect(await soon(ended)).toEqual([]);
        const start = (await store.get('x')).revision;
        const running = drain(store.watch(newPrefix(), start, abort.signal));
        abort.abort();
        expect(await soon(running)).toEqual([]);
      });

      test('tell once that the history is gone, and at its edge miss nothing', async () => {
        const prefix = newPrefix();
        const first = await put(store, `${prefix}a`, '1');
        const second = await put(store, `${prefix}a`, '2');
        const gone = (await store.txn({ compare: [], writes: [{ kind: 'delete', key: `${prefix}a` }] })).revision;
        await put(store, `${prefix}b`, '3');
        await world.compact(gone);
        for (const after of [0n as Revision, first, second]) {
          // Behind `second` comes a deletion that compaction took away: etcd itself would skip it silently.
          expect(await soon(drain(other.watch(prefix, after, never)))).toEqual([{ kind: 'compacted' }]);
        }
        const batches = collect(other, prefix, gone);
        expect((await batches.until((seen) => seen.length >= 1)).map(summary)).toEqual([`${prefix}b=3`]);
        batches.stop();
      });

      test('survive a compaction of what they have delivered', async () => {
        const prefix = newPrefix();
        const start = await put(store, `${prefix}a`, '1');
        const batches = collect(other, prefix, start);
        const second = await put(store, `${prefix}a`, '2');
        await batches.until((seen) => seen.length >= 1);
        await world.compact(second);
        await put(store, `${prefix}a`, '3');
        expect((await batches.until((seen) => seen.length >= 2)).map(summary)).toEqual([
          `${prefix}a=2`,
          `${prefix}a=3`,
        ]);
        batches.stop();
      });

      test('drop a consumer that is too slow with "compacted"', async () => {
        const prefix = newPrefix();
        const slow = world.client({ maxBufferedEvents: 10 });
        try {
          const start = (await store.get(`${prefix}x`)).revision;
          const watch = slow.watch(prefix, start, never)[Symbol.asyncIterator]();
          await put(store, `${prefix}k`, 'first');
          const first = await soon(nextEvents(watch));
          expect(first.kind).toBe('events');
          const quick = collect(slow, prefix, start);
          for (let i = 0; i < 40; i++) await put(store, `${prefix}k`, String(i));
          // The quick watch of the same client shows that the slow one's events have arrived, too.
          expect(await quick.until((seen) => seen.length >= 41)).toHaveLength(41);
          quick.stop();
          expect(await soon(nextEvents(watch))).toEqual({ kind: 'compacted' });
          expect((await soon(watch.next())).done).toBe(true);
        } finally {
          await slow.close();
        }
      });

      test('end with an error when the store is closed', async () => {
        const closing = world.client({ maxBufferedEvents: 10 });
        const start = (await closing.get('x')).revision;
        const running = drain(closing.watch(newPrefix(), start, never));
        const asking = closing.get('x').catch((error: BusbarError) => error.reason);
        await closing.close();
        expect((await rejection(soon(running))).reason).toBe('STORE_CLOSED');
        expect(['STORE_CLOSED', expect.anything()]).toContainEqual(await asking);
        expect((await rejection(closing.get('x'))).reason).toBe('STORE_CLOSED');
      });
    });

    // Two of them wait for an expiry: they wait together.
    describe.concurrent('leases', () => {
      test('take their keys along when they expire, and not before', async () => {
        const prefix = newPrefix();
        const lease = await store.grantLease(2_000);
        const grantedAtMs = systemClock.nowMs();
        expect(lease.validUntilMs()).toBeLessThanOrEqual(grantedAtMs + 1_800);
        const { revision } = await store.txn({
          compare: [],
          writes: [
            { kind: 'put', key: `${prefix}a`, value: '1', lease: lease.id },
            { kind: 'put', key: `${prefix}b`, value: '2', lease: lease.id },
            { kind: 'put', key: `${prefix}kept`, value: '3' },
          ],
        });
        const batches = collect(other, prefix, revision);
        const events = await batches.until((seen) => seen.length >= 2);
        expect(events.map(summary).toSorted()).toEqual([`${prefix}a deleted`, `${prefix}b deleted`]);
        expect(systemClock.nowMs()).toBeGreaterThan(lease.validUntilMs());
        expect((await store.list(prefix)).value.map(({ value }) => value)).toEqual(['3']);
        expect((await rejection(lease.renew())).reason).toBe('LEASE_GONE');
        expect(lease.validUntilMs()).toBe(Number.NEGATIVE_INFINITY);
        batches.stop();
      });

      test('live on while they are renewed', async () => {
        const key = `${newPrefix()}a`;
        const lease = await store.grantLease(2_000);
        await putLeased(store, key, lease.id);
        const beforeMs = lease.validUntilMs();
        await waitUntil(async () => {
          await lease.renew();
          return systemClock.nowMs() > beforeMs + 700;
        });
        expect(lease.validUntilMs()).toBeGreaterThan(beforeMs + 700);
        expect((await other.get(key)).value).not.toBeNull();
        await lease.revoke();
      });

      test('end at once when revoked; revoking twice is no error', async () => {
        const key = `${newPrefix()}a`;
        const lease = await store.grantLease(60_000);
        await putLeased(store, key, lease.id);
        await lease.revoke();
        expect((await other.get(key)).value).toBeNull();
        expect(lease.validUntilMs()).toBe(Number.NEGATIVE_INFINITY);
        await lease.revoke();
        const late = await rejection(putLeased(store, key, lease.id));
        expect([late.kind, late.reason]).toEqual(['precondition', 'LEASE_GONE']);
        expect((await other.get(key)).value).toBeNull();
      });

      test('let go of a key that is written without them', async () => {
        const key = `${newPrefix()}a`;
        const lease = await store.grantLease(60_000);
        await putLeased(store, key, lease.id);
        await put(store, key, 'free');
        await lease.revoke();
        expect((await other.get(key)).value?.value).toBe('free');
      });
    });
  });
}
