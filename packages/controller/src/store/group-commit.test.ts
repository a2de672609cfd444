// SPDX-License-Identifier: Apache-2.0
// Goal: joining transactions must be invisible but for their number. Method: on the memory store, random transactions
// of many callers at once; every result and the final state must be those of some order one after the other.
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { Revision } from '@busbar/core/ids';
import { seededRandom } from '@busbar/core/random';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type { ClusterStore, LeaseId, Transaction } from './cluster-store.ts';
import { outcomeUnknown } from './errors.ts';
import { type Commit, groupCommit } from './group-commit.ts';
import { MemoryStoreServer } from './memory.ts';

let clock: VirtualClock;
let truth: MemoryStoreServer;
let store: ClusterStore;
let sent: Transaction[];
let commit: Commit;

beforeEach(() => {
  clock = new VirtualClock();
  truth = new MemoryStoreServer({ clock });
  const client = truth.client({ clock, random: seededRandom(1), latencyMs: 5 });
  store = client;
  sent = [];
  commit = groupCommit({
    txn(transaction) {
      sent.push(transaction);
      return client.txn(transaction);
    },
  });
});

const put = (key: string, value = 'x', lease?: LeaseId): Transaction => ({
  compare: [],
  writes: [{ kind: 'put', key, value, ...(lease === undefined ? {} : { lease }) }],
});
const absent = (key: string) => ({ target: 'mod', key, revision: 0n as Revision }) as const;

const keysSent = () => sent.map(({ writes }) => writes.map(({ key }) => key));
async function pause(): Promise<void> {
  await Promise.resolve();
  await Promise.resolve();
}

async function all<T>(promises: readonly Promise<T>[]): Promise<readonly PromiseSettledResult<T>[]> {
  let done = false;
  const settled = Promise.allSettled(promises).then((results) => {
    done = true;
    return results;
  });
  expect(await clock.advanceUntil(() => done, 60_000)).toBe(true);
  return settled;
}

describe('group commit', () => {
  it('compares once what several compare', async () => {
    const fence = { target: 'create', key: 'leader', revision: 0n as Revision } as const;
    const fenced = (key: string): Transaction => ({ ...put(key), compare: [fence, absent(key)] });
    await all([commit(put('a')), ...['b', 'c', 'd'].map((key) => pause().then(() => commit(fenced(key))))]);
    expect(sent.map(({ compare }) => compare.map(({ key }) => key))).toEqual([[], ['leader', 'b', 'c', 'd']]);
  });

  it('sends one alone at once, and what comes meanwhile together', async () => {
    const calls = [commit(put('a'))];
    await pause();
    calls.push(commit(put('b')));
    await pause();
    calls.push(commit(put('c')), commit(put('d')), commit(put('e')));
    await all(calls);
    expect(keysSent()).toEqual([['a'], ['b'], ['c', 'd', 'e']]);
  });

  it('sends no second one beside the first until about as many wait as lately went together', async () => {
    const results = await all(Array.from({ length: 16 }, (_, i) => commit(put(`k${i}`))));
    expect(results.every((result) => result.status === 'fulfilled' && result.value.succeeded)).toBe(true);
    expect(sent.length).toBe(1);
    const calls: Promise<unknown>[] = [];
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
      calls.push(commit(put(key)));
      await pause();
    }
    await all(calls);
    // 16 went together, then 1, which is 8 that are usual: half of them may go.
    expect(keysSent().slice(1)).toEqual([['a'], ['b', 'c', 'd', 'e'], ['f']]);
    // Whoever comes alone afterwards waits for nobody.
    await all([commit(put('z'))]);
    expect(keysSent().at(-1)).toEqual(['z']);
  });

  it('keeps the limits of a transaction', async () => {
    await all(Array.from({ length: 300 }, (_, i) => commit(put(`k${i}`))));
    expect(Math.max(...sent.map(({ writes }) => writes.length))).toBe(128);
    expect((await all([store.list('k')]))[0]).toMatchObject({ value: { value: { length: 300 } } });
    sent.length = 0;
    const large = 'v'.repeat(200_000);
    await all(Array.from({ length: 4 }, (_, i) => commit(put(`l${i}`, large))));
    expect(sent.length).toBe(4);
  });

  it('gives each its own result when one comparison fails', async () => {
    truth.txn(put('taken'));
    const results = await all([
      commit(put('a')),
      commit({ compare: [absent('taken')], writes: [{ kind: 'put', key: 'taken', value: 'mine' }] }),
      commit(put('b')),
    ]);
    expect(results.map((result) => result.status === 'fulfilled' && result.value.succeeded)).toEqual([
      true,
      false,
      true,
    ]);
  });

  it('gives each its own error when one is refused for itself', async () => {
    const [lease] = await all([store.grantLease(10_000)]);
    if (lease?.status !== 'fulfilled') throw new Error('no lease');
    truth.revokeLease(lease.value.id);
    const results = await all([commit(put('a')), commit(put('b', 'x', lease.value.id)), commit(put('c'))]);
    expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(results[1]).toMatchObject({ reason: { reason: 'LEASE_GONE' } });
  });

  it('tells all that were sent that nobody knows, and those behind them that nothing was changed', async () => {
    let fail = () => {};
    const stuck = groupCommit({
      txn: () =>
        new Promise((_, reject) => {
          fail = () => reject(outcomeUnknown('a write'));
        }),
    });
    const calls = [stuck(put('a'))];
    await Promise.resolve();
    const failFirst = fail;
    calls.push(stuck(put('b')));
    await Promise.resolve();
    calls.push(stuck(put('c')), stuck(put('d')));
    await Promise.resolve();
    failFirst();
    fail();
    const results = await Promise.allSettled(calls);
    expect(
      results.map((result) => result.status === 'rejected' && (result.reason as { reason: string }).reason),
    ).toEqual(['STORE_OUTCOME_UNKNOWN', 'STORE_OUTCOME_UNKNOWN', 'STORE_UNAVAILABLE', 'STORE_UNAVAILABLE']);
  });

  it('does not join two of which each breaks what the other compares', async () => {
    const skew = (reads: string, writes: string): Transaction => ({
      compare: [absent(reads)],
      writes: [{ kind: 'put', key: writes, value: 'x' }],
    });
    const results = await all([commit(skew('x', 'y')), commit(skew('y', 'x'))]);
    expect(results.filter((result) => result.status === 'fulfilled' && result.value.succeeded).length).toBe(1);
  });

  it('is as if they had come one after the other, in the order of their revisions', async () => {
    const key = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
    const keys = fc.uniqueArray(key, { minLength: 1, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.record({ reads: keys, writes: keys }), { maxLength: 40 }), async (plans) => {
        truth = new MemoryStoreServer({ clock });
        const client = truth.client({ clock, random: seededRandom(1), latencyMs: 5 });
        const joined = groupCommit(client);
        const before = truth.revision;
        const results = await all(
          plans.map(({ reads, writes }, index) =>
            joined({
              compare: reads.map(absent),
              writes: writes.map((each) => ({ kind: 'put' as const, key: each, value: String(index) })),
            }),
          ),
        );
        // Replay: each that succeeded found its keys absent when its turn came; each that failed, one of them written.
        const done = results.map((result) => (result.status === 'fulfilled' ? result.value : null));
        const writtenAt = new Map<string, Revision>();
        plans.forEach(({ writes }, index) => {
          const result = done[index];
          if (result?.succeeded) {
            for (const each of writes)
              if (result.revision < (writtenAt.get(each) ?? (1_000_000n as Revision)))
                writtenAt.set(each, result.revision);
          }
        });
        plans.forEach(({ reads }, index) => {
          const result = done[index];
          if (result === null || result === undefined) throw new Error('no result');
          const first = reads.map((each) => writtenAt.get(each)).filter((each) => each !== undefined);
          if (result.succeeded) for (const revision of first) expect(revision).toBeGreaterThanOrEqual(result.revision);
          else expect(first.some((revision) => revision <= result.revision)).toBe(true);
        });
        expect(truth.revision).toBeGreaterThanOrEqual(before);
      }),
      { numRuns: 200 },
    );
  });
});
