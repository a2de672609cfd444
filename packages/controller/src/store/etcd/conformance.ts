// SPDX-License-Identifier: Apache-2.0

import { systemClock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import { silentLogger } from '@busbar/core/log';
import { fixedTls } from '@busbar/pki/tls/source';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { LeaseId, TransactionResult, WatchBatch } from '../cluster-store.ts';
import { clusterStoreConformance } from '../conformance.ts';
import { EtcdStore } from '../etcd.ts';
import { collect, put, rejection, revisionOf, soon, waitUntil } from '../examine.fixture.ts';
import { LeaseClaim } from '../lease-claim.ts';
import { EtcdLease } from './lease.ts';
import { LEASE_GRANT, LEASE_KEEP_ALIVE } from './messages.ts';
import { type EtcdTestCluster, makeCertificates } from './test-cluster.ts';

function client(
  etcd: EtcdTestCluster,
  members = etcd.addresses,
  more: { maxBufferedEvents?: number; callDeadlineMs?: number } = {},
): EtcdStore {
  return new EtcdStore({ members, tls: fixedTls(etcd.tls), clock: systemClock, log: silentLogger, ...more });
}

/** Everything that EtcdStore promises, on real members: the contract of every store, and what happens when members fail. */
export function etcdConformance(name: string, start: (size: number) => Promise<EtcdTestCluster>): void {
  for (const size of [1, 3]) {
    clusterStoreConformance(`${name}, ${size} member(s)`, async () => {
      const etcd = await start(size);
      const store = client(etcd);
      const other = client(etcd, etcd.addressesFrom(size - 1));
      return {
        store,
        other,
        client: (options) => client(etcd, etcd.addresses, options),
        compact: (revision) => etcd.compact(revision),
        async close() {
          await store.close();
          await other.close();
          await etcd.stop();
        },
      };
    });
  }

  describe(`${name}, 3 members, some of them failing`, () => {
    let etcd: EtcdTestCluster;
    /** A client that nothing is done to: the judge. */
    let judge: EtcdStore;
    const stores: EtcdStore[] = [];
    let serial = 0;

    beforeAll(async () => {
      etcd = await start(3);
      judge = client(etcd);
    });
    afterEach(async () => {
      for (const store of stores.splice(0)) await store.close();
      // Whatever a test did, and wherever it failed, the next one finds three members that agree.
      await etcd.restartKilled();
      for (const index of [0, 1, 2]) await etcd.thaw(index);
      await etcd.leader();
    });
    afterAll(async () => {
      await judge?.close();
      await etcd?.stop();
    });

    const open = (members: readonly [string, ...string[]], callDeadlineMs = 3_500) => {
      const store = client(etcd, members, { callDeadlineMs });
      stores.push(store);
      return store;
    };
    const newKey = () => `failing/${++serial}`;
    const aFollower = async () => ((await etcd.leader()) + 1) % 3;
    /** A client that does not talk to this member: what is under way to a member that is killed has no known outcome. */
    const notThrough = (member: number) =>
      open(etcd.addresses.filter((address) => address !== etcd.address(member)) as [string, ...string[]]);
    async function timed<T>(work: Promise<T>): Promise<{ value: T; tookMs: number }> {
      const startMs = systemClock.nowMs();
      const value = await work;
      return { value, tookMs: Math.round(systemClock.nowMs() - startMs) };
    }
    const report = (what: string, tookMs: number) => console.info(`measured: ${what}: ${Math.round(tookMs)} ms`);

    test('a frozen member costs a moment once, then another is used', async () => {
      const member = await aFollower();
      const store = open(etcd.addressesFrom(member));
      const key = newKey();
      const revision = await put(store, key, '1');
      await etcd.freeze(member);
      // Right after an answer the member is trusted: the call itself has to find out.
      const read = await timed(store.get(key));
      expect(read.value.value?.value).toBe('1');
      report('first read after the freeze', read.tookMs);
      expect(read.tookMs).toBeLessThan(3_600);
      const next = await timed(put(store, key, '2'));
      report('next write', next.tookMs);
      expect(next.tookMs).toBeLessThan(3_600);
      expect(next.value).toBeGreaterThan(revision);
    });

    test('an idle client notices a frozen member before it trusts it with a write', async () => {
      const member = await aFollower();
      const store = open(etcd.addressesFrom(member));
      const key = newKey();
      await put(store, key, '1');
      await etcd.freeze(member);
      const idleUntilMs = systemClock.nowMs() + 600;
      await waitUntil(() => systemClock.nowMs() > idleUntilMs);
      const write = await timed(put(store, key, '2'));
      report('first write of an idle client after the freeze', write.tookMs);
      expect(write.tookMs).toBeLessThan(3_600);
    });

    test('a write caught by the freeze is never applied twice, and its outcome is never guessed', async () => {
      const member = await aFollower();
      const store = open(etcd.addressesFrom(member));
      const [guarded, plain] = [newKey(), newKey()];
      const revision = await put(store, guarded, 'before');
      await etcd.freeze(member);
      const settled = async (target: string, before: Revision) => {
        const compare = [{ target: 'mod', key: target, revision: before } as const];
        const writing = store.txn({ compare, writes: [{ kind: 'put', key: target, value: 'after' }] });
        return timed(writing.catch((error: BusbarError) => error.reason));
      };
      const [withGuard, withoutGuard] = await Promise.all([settled(guarded, revision), settled(plain, 0n as Revision)]);
      report('guarded write into the freeze', withGuard.tookMs);
      report('unguarded write into the freeze', withoutGuard.tookMs);
      // The second sending can only succeed if the first was not, and then never will be, applied.
      expect(withGuard.value).toMatchObject({ succeeded: true });
      // Unless the machine was so slow that the store asked before it sent, nobody can know.
      if (typeof withoutGuard.value === 'string') expect(withoutGuard.value).toBe('STORE_OUTCOME_UNKNOWN');
      else expect(withoutGuard.value.succeeded).toBe(true);
      for (const { tookMs } of [withGuard, withoutGuard]) expect(tookMs).toBeLessThan(3_600);
      await etcd.thaw(member);
      await etcd.leader();
      // If the frozen member carries out the old request now, its comparison fails.
      await put(open([etcd.address(member)]), newKey(), '');
      const { revision: applied } = withGuard.value as TransactionResult;
      expect((await judge.get(guarded)).value?.modRevision).toBe(applied);
    });

    test('a frozen etcd leader delays calls by an election', async () => {
      const leader = await etcd.leader();
      const store = open(etcd.addressesFrom(leader));
      const key = newKey();
      await put(store, key, '1');
      await etcd.freeze(leader);
      // etcd elects anew after 1 to 2 s, after a split vote again. A call may outlast the one and is refused, in time and
      // with nothing applied, by the other; calls work again as soon as there is a leader.
      const frozenMs = systemClock.nowMs();
      await waitUntil(async () => {
        const read = await timed(store.get(key).catch((error: unknown) => error as BusbarError));
        expect(read.tookMs).toBeLessThan(4_000);
        if (!(read.value instanceof BusbarError)) return true;
        expect(read.value.kind).toBe('unavailable');
        return false;
      });
      report('first read after the freeze of the leader', systemClock.nowMs() - frozenMs);
      await put(store, key, '2');
    });

    test('a watch moves away from a frozen member without gap or repeat', async () => {
      const member = await aFollower();
      const store = open(etcd.addressesFrom(member));
      const key = newKey();
      const batches = collect(store, key, await put(store, key, 'start'));
      await put(judge, key, '0');
      await batches.until((seen) => seen.length === 1);
      await etcd.freeze(member);
      const frozenMs = systemClock.nowMs();
      const written = [revisionOf(batches.events[0] ?? fail())];
      const writer = notThrough(member);
      for (let i = 1; i <= 5; i++) written.push(await put(writer, key, String(i)));
      const seen = await batches.until(({ length }) => length >= 6);
      report('watch silent because its member froze', systemClock.nowMs() - frozenMs);
      expect(systemClock.nowMs() - frozenMs).toBeLessThan(10_000);
      await etcd.thaw(member);
      written.push(await put(writer, key, '6'));
      await batches.until(({ length }) => length >= 7);
      expect(seen.map(revisionOf)).toEqual(written);
      batches.stop();
    });

    test('a watch survives kill -9 and restart of its only member', async () => {
      const member = await aFollower();
      const store = open([etcd.address(member)]);
      const key = newKey();
      const batches = collect(store, key, await put(store, key, 'start'));
      const writer = notThrough(member);
      const written = [await put(writer, key, '0')];
      await etcd.kill(member);
      for (let i = 1; i <= 3; i++) written.push(await put(writer, key, String(i)));
      await etcd.restart(member);
      written.push(await put(writer, key, '4'));
      const seen = await batches.until(({ length }) => length >= 5);
      expect(seen.map(revisionOf)).toEqual(written);
      batches.stop();
    });

    test('a watch whose history is compacted while it is cut off says so', async () => {
      const member = await aFollower();
      const store = open([etcd.address(member)]);
      const key = newKey();
      const abort = new AbortController();
      const got: WatchBatch[] = [];
      const start = await put(store, key, 'start');
      const watching = (async () => {
        for await (const batch of store.watch(key, start, abort.signal)) if (batch.kind !== 'progress') got.push(batch);
      })();
      const writer = notThrough(member);
      await put(writer, key, '1');
      await waitUntil(() => got.length === 1);
      await etcd.kill(member);
      await put(writer, key, '2');
      const last = await put(writer, key, '3');
      await etcd.compact(last, (member + 1) % 3);
      await etcd.restart(member);
      await soon(watching);
      expect(got.map(({ kind }) => kind)).toEqual(['events', 'compacted']);
    });

    test('a quiet watch learns how far it is', async () => {
      const key = newKey();
      const start = await put(judge, key, 'start');
      const elsewhere = await put(judge, newKey(), 'elsewhere');
      const abort = new AbortController();
      const progressed = (async () => {
        for await (const batch of judge.watch(key, start, abort.signal)) {
          expect(batch.kind).toBe('progress');
          if (batch.kind === 'progress' && batch.revision >= elsewhere) return;
        }
      })();
      await soon(progressed);
      abort.abort();
    });

    test('without quorum calls are refused in time, and work again when it is back', async () => {
      const store = open(etcd.addresses);
      const key = newKey();
      await put(store, key, '1');
      const lease = await store.grantLease(60_000);
      await Promise.all([etcd.kill(1), etcd.kill(2)]);
      // A second client with a shorter patience, or the test would take twice as long.
      const impatient = open(etcd.addresses, 1_000);
      for (const [round, asking] of [
        ['at once', store],
        ['later', impatient],
      ] as const) {
        const [read, write, ping, renewal] = await Promise.all([
          timed(rejection(asking.get(key))),
          timed(rejection(put(asking, key, round))),
          timed(rejection(asking.ping(1_000))),
          timed(rejection(round === 'at once' ? lease.renew() : asking.grantLease(2_000))),
        ]);
        report(`read without quorum, ${round}`, read.tookMs);
        report(`write without quorum, ${round}`, write.tookMs);
        expect(read.value.kind).toBe('unavailable');
        expect(['timeout', 'unavailable']).toContain(write.value.kind);
        // Once the remaining member knows that it is alone, it refuses: nothing is in doubt any more.
        if (round === 'later') expect(write.value.kind).toBe('unavailable');
        expect(renewal.value.kind).toBe('unavailable');
        for (const { tookMs } of [read, write, renewal]) expect(tookMs).toBeLessThan(5_000);
        expect(ping.tookMs).toBeLessThan(2_500);
      }
      await Promise.all([etcd.restart(1), etcd.restart(2)]);
      const back = await timed(
        waitUntil(async () => {
          try {
            await put(store, key, 'back');
            return true;
          } catch {
            return false;
          }
        }),
      );
      report('first write after the restart of two members', back.tookMs);
      expect((await store.get(key)).value?.value).toBe('back');
      await lease.renew();
    });

    test('a lease is renewed in spite of a frozen member', async () => {
      const member = await aFollower();
      const store = open(etcd.addressesFrom(member));
      const key = newKey();
      const lease = await store.grantLease(3_000);
      await store.txn({ compare: [], writes: [{ kind: 'put', key, value: '', lease: lease.id }] });
      await etcd.freeze(member);
      const sentMs = systemClock.nowMs();
      const { tookMs } = await timed(lease.renew());
      report('renewal into the freeze', tookMs);
      expect(tookMs).toBeLessThan(3_600);
      // The claim counts from the second sending, which the other member answered.
      expect(lease.validUntilMs()).toBeGreaterThan(sentMs + 2_700);
      expect((await judge.get(key)).value).not.toBeNull();
      await lease.revoke();
    });

    test('a lease revoked behind its holder is noticed at the next renewal', async () => {
      const lease = await judge.grantLease(60_000);
      const call = <T>(
        _: string,
        __: unknown,
        start: (member: ReturnType<typeof etcd.member>) => { answer: Promise<T> },
      ) => {
        const member = etcd.member(0);
        return start(member)
          .answer.then((value) => ({ value, sentMs: 0, repeated: false }))
          .finally(() => member.close());
      };
      await new EtcdLease(lease.id, 60_000, new LeaseClaim(60_000), call).revoke();
      expect((await rejection(lease.renew())).reason).toBe('LEASE_GONE');
      expect(lease.validUntilMs()).toBe(Number.NEGATIVE_INFINITY);
    });

    test('a renewal that only a deposed etcd leader acknowledged does not count', async () => {
      const old = await etcd.leader();
      const rest = [0, 1, 2].filter((index) => index !== old);
      const member = etcd.member(old);
      const granted = await member.unary(LEASE_GRANT, { ttlSeconds: 60n }).answer;
      const claim = new LeaseClaim(60_000);
      const sendings: { readonly sentMs: number; renewedInTerm: bigint | undefined }[] = [];
      const lease = new EtcdLease(String(granted.id) as LeaseId, 60_000, claim, async (_, __, start) => {
        const sending = { sentMs: systemClock.nowMs(), renewedInTerm: undefined as bigint | undefined };
        sendings.push(sending);
        const value = await start(member).answer;
        const { renewed } = value as { renewed?: { header?: { raftTerm: bigint } } };
        sending.renewedInTerm = renewed?.header?.raftTerm;
        return { value, sentMs: sending.sentMs, repeated: false };
      });
      await lease.renew();
      expect(claim.validUntilMs()).toBe((sendings[0]?.sentMs ?? 0) + 54_000);
      await etcd.freeze(old);
      const bare = member.single(LEASE_KEEP_ALIVE, { id: granted.id }).answer.then(
        ({ ttlSeconds, header }) => `TTL ${ttlSeconds} s in term ${header?.raftTerm}`,
        (error: Error) => error.message,
      );
      const renewing = lease.renew().catch(() => {});
      const next = etcd.member(await etcd.leader(rest));
      const term = (await next.probe()).header?.raftTerm;
      next.close();
      await etcd.thaw(old);
      console.info(`measured: in term ${term}, a keep-alive sent to the deposed leader gets: ${await soon(bare)}`);
      await soon(renewing);
      // Either nothing counts since the freeze, or a sending that was renewed in the new term: after the election, or lying in
      // the thawed member's socket until that had learned of its new leader and passed it on.
      const countsFromMs = claim.validUntilMs() - 54_000;
      // Adding 54 s and taking it away again loses the last bits of a float: equal means within a microsecond.
      const counts = sendings.find(({ sentMs }) => Math.abs(sentMs - countsFromMs) < 0.001);
      expect(counts).toBeDefined();
      if (counts !== sendings[0]) expect(counts?.renewedInTerm).toBe(term);
      member.close();
    });

    test('a client without a certificate of the authority gets nowhere, and is told why', async () => {
      const stranger = await makeCertificates();
      const store = new EtcdStore({
        members: etcd.addresses,
        tls: fixedTls({ ...stranger, ca: etcd.tls.ca }),
        clock: systemClock,
        log: silentLogger,
        callDeadlineMs: 2_000,
      });
      stores.push(store);
      const error = await rejection(store.get('x'));
      expect([error.kind, error.reason]).toEqual(['unavailable', 'STORE_UNAVAILABLE']);
      expect(String(error.cause)).toMatch(/127\.0\.0\.1:\d+/);
    });
  });
}

function fail(): never {
  throw new Error('unexpected');
}
