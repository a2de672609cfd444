// SPDX-License-Identifier: Apache-2.0

import { systemClock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { fixedTls } from '@busbar/pki/tls/source';
import { Status } from 'nice-grpc-common';
import { afterEach, describe, expect, test } from 'vitest';
import { statusOf } from '../api/status.ts';
import { Leadership } from '../leadership/leadership.ts';
import { slowDisk } from './etcd/slow-disk.fixture.ts';
import { EtcdTestCluster } from './etcd/test-cluster.ts';
import type { EtcdProcesses } from './etcd/test-process.ts';
import { EtcdStore } from './etcd.ts';
import { collect, put, rejection, summary, waitUntil } from './examine.fixture.ts';

/**
 * Goal: what etcd's own disk does to Busbar: full by quota, or slow. Frozen and killed members, compaction and lost
 * leases are in etcd/conformance.ts, clocks in leadership/clock-jump.conformance.test.ts.
 */
const MIB = 1024 * 1024;
/** The lease of the leader key; a term that outlives it was renewed. */
const TTL_MS = 3_000;
/** What a user waits at most for an answer or a refusal. */
const ANSWER_MS = 4_000;

let etcd: EtcdTestCluster;
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function begin(flags: Readonly<Record<string, string>> = {}): Promise<void> {
  etcd = await EtcdTestCluster.start(3, { flags });
  ends.push(() => etcd.stop());
}

function open(index: number): EtcdStore {
  const store = new EtcdStore({
    members: etcd.addressesFrom(index),
    tls: fixedTls(etcd.tls),
    clock: systemClock,
    log: silentLogger,
  });
  ends.push(() => store.close());
  return store;
}

/** A controller's part in leadership, beside the member. */
function controller(index: number): Leadership {
  const leadership = new Leadership({
    store: open(index),
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    host: `host${index}`,
    address: `10.0.0.${index}:7800`,
  });
  const abort = new AbortController();
  const done = leadership.run(abort.signal);
  ends.push(() => {
    abort.abort();
    return done;
  });
  return leadership;
}

async function pass(ms: number, each: () => void | Promise<void> = () => {}): Promise<void> {
  const endMs = systemClock.nowMs() + ms;
  await waitUntil(async () => {
    await each();
    return systemClock.nowMs() > endMs;
  }, ms + 30_000);
}

async function timed<T>(work: Promise<T>): Promise<{ value: T | BusbarError; tookMs: number }> {
  const startMs = systemClock.nowMs();
  const value = await work.catch((error: unknown) => {
    if (error instanceof BusbarError) return error;
    throw error;
  });
  return { value, tookMs: Math.round(systemClock.nowMs() - startMs) };
}

describe('an etcd whose database has reached its quota', () => {
  test('refuses writes with what to do; reads, watches, leases and the leader go on; writes work again once space is made', async () => {
    await begin({ 'quota-backend-bytes': String(4 * MIB) });
    const store = open(0);
    const leadership = controller(1);
    await waitUntil(() => leadership.isLeader() !== null);
    const term = leadership.isLeader();
    const lease = await store.grantLease(TTL_MS);
    await store.txn({ compare: [], writes: [{ kind: 'put', key: 'leased', value: '', lease: lease.id }] });
    const start = await put(store, 'small', 'before');
    const seen = collect(store, 'small', start);

    let refusal: BusbarError | undefined;
    for (let i = 0; refusal === undefined && i < 64; i++) {
      const filled = await timed(put(store, 'big', String(i % 10).repeat(MIB / 2)));
      if (filled.value instanceof BusbarError) refusal = filled.value;
      await lease.renew();
    }
    expect(refusal).toMatchObject({ kind: 'exhausted', reason: 'STORE_FULL' });
    expect(refusal?.hint).toMatch(/[Cc]ompact.*defragment.*alarm disarm/);
    expect(statusOf(refusal).code).toBe(Status.RESOURCE_EXHAUSTED);
    // Small ones, too, and leases: the alarm is on, on every member, and the answer comes at once.
    for (const asking of [store, open(1), open(2)]) {
      const small = await timed(put(asking, 'small', 'refused'));
      expect(small.value).toMatchObject({ reason: 'STORE_FULL' });
      expect(small.tookMs).toBeLessThan(ANSWER_MS);
      expect(await rejection(asking.grantLease(TTL_MS))).toMatchObject({ reason: 'STORE_FULL' });
    }

    // For longer than any lease lasts unless it is renewed.
    await pass(TTL_MS + 1_000, () => lease.renew());
    expect(leadership.isLeader()).toBe(term);
    await store.ping(2_000);
    expect((await store.get('leased')).value).not.toBeNull();
    expect((await store.list('small')).value.map(({ value }) => value)).toEqual(['before']);
    // What makes room is not refused, and watches tell of it.
    await store.txn({ compare: [], writes: [{ kind: 'delete', key: 'small' }] });
    expect((await seen.until((events) => events.length === 1)).map(summary)).toEqual(['small deleted']);

    await etcd.reclaim((await store.get('small')).revision);
    const again = await timed(put(store, 'small', 'after'));
    expect(typeof again.value).toBe('bigint');
    expect(leadership.isLeader()).toBe(term);
    expect((await store.txn({ compare: [term?.fence() ?? never()], writes: [] })).succeeded).toBe(true);
    seen.stop();
  });

  test('takes no new leader while it is full, and has one right after space is made', async () => {
    await begin({ 'quota-backend-bytes': String(4 * MIB) });
    const store = open(0);
    const controllers = [controller(0), controller(1), controller(2)];
    const leading = () => controllers.find((each) => each.isLeader() !== null);
    await waitUntil(() => leading() !== undefined);
    for (let i = 0, full = false; !full && i < 64; i++)
      full = (await timed(put(store, 'big', String(i % 10).repeat(MIB / 2)))).value instanceof BusbarError;
    await leading()?.resign();
    // Nobody can write the leader key: known, and said in docs/operations.md. Nothing else happens meanwhile.
    await pass(2_000, () => expect(leading()).toBeUndefined());
    expect((await store.get('big')).value).not.toBeNull();
    await etcd.reclaim((await store.get('big')).revision);
    const startMs = systemClock.nowMs();
    await waitUntil(() => leading() !== undefined);
    console.info(`measured: a leader after space was made: ${Math.round(systemClock.nowMs() - startMs)} ms`);
  });
});

describe('a disk that takes 1.5 s for each flush', () => {
  const DELAY_MS = 1_500;
  const runtime = () => etcd.runtime as EtcdProcesses;

  // As on a real host (deploy/lab/render-services.ts): an etcd that elects after 1 s has no leader at all on such disks.
  const FLAGS = { 'heartbeat-interval': '200', 'election-timeout': '2000' };

  /** Writes and reads for a while through each member. Every call ends in time; what was acknowledged is there afterwards. */
  async function trouble(ms: number, members: readonly number[], during: () => void) {
    const ended = new Map<string, number>();
    const count = (what: string) => ended.set(what, (ended.get(what) ?? 0) + 1);
    const acknowledged: string[] = [];
    const endMs = systemClock.nowMs() + ms;
    await Promise.all(
      members.map(async (index) => {
        const store = open(index);
        for (let i = 0; systemClock.nowMs() < endMs; i++) {
          during();
          const key = `trouble/${index}/${i}`;
          const [write, read] = await Promise.all([timed(put(store, key, '')), timed(store.get('trouble'))]);
          for (const { value, tookMs } of [write, read]) {
            expect(tookMs).toBeLessThan(ANSWER_MS);
            if (value instanceof BusbarError) expect(['timeout', 'unavailable']).toContain(value.kind);
          }
          count(write.value instanceof BusbarError ? `write ${write.value.kind}` : 'write done');
          count(read.value instanceof BusbarError ? `read ${read.value.kind}` : 'read done');
          if (!(write.value instanceof BusbarError)) acknowledged.push(key);
        }
      }),
    );
    console.info(`measured: calls on a slow disk: ${JSON.stringify(Object.fromEntries(ended))}`);
    const nothingLost = async () => {
      const { value } = await open(0).list('trouble/');
      const found = new Set(value.map(({ key }) => key));
      expect(acknowledged.filter((key) => !found.has(key))).toEqual([]);
    };
    return { ended, nothingLost };
  }

  test('on a follower of etcd costs no call and no term, also of the controller beside it', async () => {
    await begin(FLAGS);
    const slow = ((await etcd.leader()) + 1) % 3;
    const leadership = controller(slow);
    await waitUntil(() => leadership.isLeader() !== null);
    const term = leadership.isLeader();
    await using _ = await slowDisk(runtime().pid(etcd.name(slow)), DELAY_MS);
    const same = () => expect(leadership.isLeader()).toBe(term);
    const { ended, nothingLost } = await trouble(6_000, [slow, (slow + 1) % 3], same);
    expect(ended.get('write done')).toBeGreaterThan(0);
    expect(term?.isValid()).toBe(true);
    await nothingLost();
  });

  test.each([
    ["etcd's leader", (leader: number) => [leader]],
    ['every member', () => [0, 1, 2]],
  ])('on %s ends every call in time; a term ends only with its lease; then all is well again', async (_, victims) => {
    await begin(FLAGS);
    const slow = victims(await etcd.leader());
    const controllers = [controller(0), controller(1), controller(2)];
    const leading = () => controllers.filter((each) => each.isLeader() !== null);
    await waitUntil(() => leading().length === 1);
    const terms = new Set<bigint>();
    const disks = await Promise.all(slow.map((index) => slowDisk(runtime().pid(etcd.name(index)), DELAY_MS)));
    const startMs = systemClock.nowMs();
    const { nothingLost } = await trouble(6_000, [0, 1, 2], () => {
      expect(leading().length).toBeLessThanOrEqual(1);
      for (const each of leading()) terms.add(each.isLeader()?.createRevision ?? 0n);
    }).finally(() => Promise.all(disks.map((disk) => disk[Symbol.asyncDispose]())));
    const tookMs = systemClock.nowMs() - startMs;
    console.info(`measured: terms in ${Math.round(tookMs)} ms: ${terms.size}`);
    // A term that is over lived for its lease, less the margin: no more of them fit into the time.
    expect(terms.size).toBeLessThanOrEqual(1 + Math.ceil(tookMs / (TTL_MS * 0.9)));
    await waitUntil(() => leading().length === 1);
    await nothingLost();
    await put(open(0), 'trouble/after', 'yes');
  });
});

function never(): never {
  throw new Error('no term');
}
