// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { VirtualClock } from '@busbar/core/clock/virtual';
import { silentLogger } from '@busbar/core/log';
import { seededRandom } from '@busbar/core/random';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import type { LeaseId } from '../store/cluster-store.ts';
import { type MemoryStore, MemoryStoreServer } from '../store/memory.ts';
import { LEADER_KEY, Leadership, type LeaderTerm } from './leadership.ts';

/** A host's clock: runs at its own rate, and when the host is frozen time goes on but nothing runs. */
class HostClock implements Clock {
  readonly #base: VirtualClock;
  readonly #rate: number;
  #frozen = false;
  #held: (() => void)[] = [];

  constructor(base: VirtualClock, rate: number) {
    this.#base = base;
    this.#rate = rate;
  }

  nowMs(): number {
    return this.#base.nowMs() * this.#rate;
  }

  wallTime(): Date {
    return this.#base.wallTime();
  }

  timer(delayMs: number, callback: () => void): Disposable {
    let cancelled = false;
    const run = () => {
      if (cancelled) return;
      if (this.#frozen) this.#held.push(run);
      else callback();
    };
    const timer = this.#base.timer(delayMs / this.#rate, run);
    return {
      [Symbol.dispose]: () => {
        cancelled = true;
        timer[Symbol.dispose]();
      },
    };
  }

  turn(): Promise<void> {
    return this.#base.turn();
  }

  setFrozen(frozen: boolean): void {
    this.#frozen = frozen;
    if (frozen) return;
    const held = this.#held;
    this.#held = [];
    for (const run of held) run();
  }
}

interface Candidate {
  readonly clock: HostClock;
  readonly store: MemoryStore;
  readonly leadership: Leadership;
  readonly abort: AbortController;
  readonly changes: (LeaderTerm | null)[];
  readonly done: Promise<void>;
}

function cluster(options: {
  count?: number;
  seed?: number;
  latencyMs?: number | [number, number];
  rates?: number[];
  leaseExpiryLagMs?: number;
}) {
  const clock = new VirtualClock();
  const server = new MemoryStoreServer({ clock, leaseExpiryLagMs: options.leaseExpiryLagMs ?? 500 });
  const candidates = Array.from({ length: options.count ?? 2 }, (_, i): Candidate => {
    const hostClock = new HostClock(clock, options.rates?.[i] ?? 1);
    const random = seededRandom((options.seed ?? 1) + i);
    const store = server.client({ clock: hostClock, random, latencyMs: options.latencyMs ?? 2 });
    const leadership = new Leadership({
      store,
      clock: hostClock,
      random,
      log: silentLogger,
      host: `host${i}`,
      address: `10.0.0.${i}:7400`,
    });
    const changes: (LeaderTerm | null)[] = [];
    leadership.onChange((term) => changes.push(term));
    const abort = new AbortController();
    return { clock: hostClock, store, leadership, abort, changes, done: leadership.run(abort.signal) };
  });
  const leaders = () => candidates.filter(({ leadership }) => leadership.isLeader() !== null);
  return {
    clock,
    server,
    candidates,
    leaders,
    /** The leader after at most `limitMs`, and how long it took. */
    async elect(
      limitMs = 10_000,
      among = candidates,
    ): Promise<{ leader: Candidate; term: LeaderTerm; tookMs: number }> {
      const startMs = clock.nowMs();
      const current = () => among.find(({ leadership }) => leadership.isLeader() !== null);
      expect(await clock.advanceUntil(() => current() !== undefined, limitMs)).toBe(true);
      const leader = current();
      const term = leader?.leadership.isLeader();
      if (!leader || !term) throw new Error('unreachable');
      return { leader, term, tookMs: clock.nowMs() - startMs };
    },
    async stop() {
      server.setQuorum(true);
      for (const { abort, clock: hostClock, store } of candidates) {
        hostClock.setFrozen(false);
        store.setReachable(true);
        store.setFrozen(false);
        abort.abort();
      }
      await clock.advance(10_000);
      await Promise.all(candidates.map(({ done }) => done));
    },
  };
}

describe('leadership', () => {
  test('one of the candidates leads, stays, and everybody knows it', async () => {
    const world = cluster({ count: 3 });
    const { leader, term, tookMs } = await world.elect();
    expect(tookMs).toBeLessThan(100);
    await world.clock.advance(60_000);
    expect(world.leaders()).toEqual([leader]);
    expect(leader.leadership.isLeader()).toBe(term);
    expect(leader.changes).toEqual([term]);
    const host = world.candidates.indexOf(leader);
    for (const { leadership } of world.candidates) {
      expect(leadership.leader()).toMatchObject({ host: `host${host}`, address: `10.0.0.${host}:7400` });
    }
    await world.stop();
    expect(world.server.get(LEADER_KEY).value).toBeNull();
    expect(term.signal.aborted).toBe(true);
    expect(leader.changes).toEqual([term, null]);
  });

  test('a cut-off leader knows it before another begins; its fenced write fails', async () => {
    const world = cluster({});
    const first = await world.elect();
    const rest = world.candidates.filter((candidate) => candidate !== first.leader);
    await world.clock.advance(5_000);
    first.leader.store.setReachable(false);
    const cutMs = world.clock.nowMs();
    await world.clock.advanceUntil(() => first.term.signal.aborted, 10_000);
    const overAfterMs = world.clock.nowMs() - cutMs;
    expect(overAfterMs).toBeLessThanOrEqual(2_700);
    expect(world.leaders()).toEqual([]);
    const second = await world.elect(10_000, rest);
    expect(overAfterMs + second.tookMs).toBeLessThan(3_600);
    expect(second.term.createRevision).toBeGreaterThan(first.term.createRevision);

    first.leader.store.setReachable(true);
    const write = (term: LeaderTerm, from: Candidate) =>
      from.store.txn({ compare: [term.fence()], writes: [{ kind: 'put', key: 'record', value: 'x' }] });
    const deposed = write(first.term, first.leader);
    const fenced = write(second.term, second.leader);
    await world.clock.advance(100);
    expect((await deposed).succeeded).toBe(false);
    expect((await fenced).succeeded).toBe(true);
    await world.stop();
  });

  test('a leader that resigns hands over in milliseconds and stands down', async () => {
    const world = cluster({});
    const first = await world.elect();
    await world.clock.advance(100);
    const resigning = first.leader.leadership.resign();
    expect(first.term.isValid()).toBe(false);
    expect(first.term.signal.aborted).toBe(true);
    const second = await world.elect(1_000);
    expect(second.leader).not.toBe(first.leader);
    expect(second.tookMs).toBeLessThan(50);
    await resigning;
    await world.stop();
  });

  test('alone, a leader that resigned comes back after standing down', async () => {
    const world = cluster({ count: 1 });
    const first = await world.elect();
    void first.leader.leadership.resign(2_000);
    await world.clock.advance(1_900);
    expect(world.leaders()).toEqual([]);
    const second = await world.elect(1_000);
    expect(second.term.createRevision).toBeGreaterThan(first.term.createRevision);
    await world.stop();
  });

  test('a day of steps leaves nothing behind on the signal, and races nothing that lives on', async () => {
    const add = vi.spyOn(EventTarget.prototype, 'addEventListener');
    const remove = vi.spyOn(EventTarget.prototype, 'removeEventListener');
    const race = vi.spyOn(Promise, 'race');
    try {
      const world = cluster({ count: 1 });
      await world.elect();
      await world.clock.advance(600_000);
      const signal = world.candidates[0]?.abort.signal;
      const times = ({ mock }: { mock: { contexts: unknown[] } }) => mock.contexts.filter((on) => on === signal).length;
      expect(times(add)).toBeGreaterThan(100);
      // One for the run itself, one for the step under way.
      expect(times(add) - times(remove)).toBeLessThanOrEqual(2);
      expect(race).not.toHaveBeenCalled();
      await world.stop();
    } finally {
      vi.restoreAllMocks();
    }
  });

  test('a clean shutdown is quick, with and without the store', async () => {
    for (const reachable of [true, false]) {
      const world = cluster({ count: 1 });
      const { leader } = await world.elect();
      leader.store.setReachable(reachable);
      leader.abort.abort();
      let ended = false;
      void leader.done.then(() => {
        ended = true;
      });
      expect(await world.clock.advanceUntil(() => ended, 1_100)).toBe(true);
    }
  });

  test('a leader whose key or lease is taken away steps down at once', async () => {
    for (const takeAway of ['key', 'lease']) {
      const world = cluster({});
      const first = await world.elect();
      await world.clock.advance(5_000);
      if (takeAway === 'key') {
        world.server.txn({ compare: [], writes: [{ kind: 'delete', key: LEADER_KEY }] });
      } else {
        // Ids count up from 1, and each candidate has asked for one lease.
        for (const id of ['1', '2']) world.server.revokeLease(id as LeaseId);
      }
      await world.clock.advance(50);
      expect(first.term.isValid()).toBe(false);
      const second = await world.elect();
      expect(second.term.createRevision).toBeGreaterThan(first.term.createRevision);
      await world.stop();
    }
  });

  test('losing the quorum ends the term, its return begins another', async () => {
    const world = cluster({});
    const first = await world.elect();
    world.server.setQuorum(false);
    await world.clock.advance(30_000);
    expect(world.leaders()).toEqual([]);
    world.server.setQuorum(true);
    const second = await world.elect(5_000);
    expect(second.term.createRevision).toBeGreaterThan(first.term.createRevision);
    await world.stop();
  });

  test('a renewal lost now and then does not cost the term', async () => {
    const world = cluster({ count: 1 });
    const { leader, term } = await world.elect();
    leader.store.setLoss({ request: 0.15, answer: 0.15 });
    await world.clock.advance(60_000);
    expect(leader.leadership.isLeader()).toBe(term);
    leader.store.setLoss({ request: 0, answer: 0 });
    await world.stop();
  });

  test('a frozen leader is invalid at the instant it thaws', async () => {
    const world = cluster({});
    const { leader, term } = await world.elect();
    leader.clock.setFrozen(true);
    await world.clock.advance(10_000);
    expect(term.isValid()).toBe(false);
    leader.clock.setFrozen(false);
    expect(term.isValid()).toBe(false);
    await world.clock.advance(100);
    expect(term.signal.aborted).toBe(true);
    expect(world.leaders()).toHaveLength(1);
    await world.stop();
  });
});

type Fault =
  | { readonly do: 'cut' | 'join' | 'freeze host' | 'thaw host' | 'freeze store' | 'thaw store'; readonly who: number }
  | { readonly do: 'lose'; readonly who: number; readonly share: number }
  | { readonly do: 'quorum lost' | 'quorum back' | 'resign' | 'compact'; readonly who: number };

const who = fc.nat({ max: 2 });
const fault: fc.Arbitrary<Fault> = fc.oneof(
  fc.record({
    do: fc.constantFrom('cut', 'join', 'freeze host', 'thaw host', 'freeze store', 'thaw store', 'resign', 'compact'),
    who,
  } as const),
  fc.record({ do: fc.constantFrom('quorum lost', 'quorum back'), who } as const),
  fc.record({ do: fc.constant('lose'), who, share: fc.double({ min: 0, max: 0.6, noNaN: true }) } as const),
) as fc.Arbitrary<Fault>;

test('never two valid leaders, whatever fails; and one again once nothing does', async () => {
  let terms = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        seed: fc.nat(),
        latencyMs: fc.constantFrom<[number, number]>([0, 0], [1, 20], [5, 400]),
        leaseExpiryLagMs: fc.constantFrom(0, 500),
        rates: fc.array(fc.double({ min: 0.96, max: 1.04, noNaN: true }), { minLength: 3, maxLength: 3 }),
        faults: fc.array(fc.record({ fault, thenMs: fc.nat({ max: 2_500 }) }), { maxLength: 25 }),
      }),
      async ({ faults, ...options }) => {
        const world = cluster({ count: 3, ...options });
        let lastCreateRevision = 0n;
        const observeFor = async (durationMs: number) => {
          for (let endMs = world.clock.nowMs() + durationMs; world.clock.nowMs() < endMs; ) {
            await world.clock.advance(Math.min(25, endMs - world.clock.nowMs()));
            // Frozen hosts count as well: what they do right after the thaw relies on the same answer.
            const valid = world.leaders();
            expect(valid.length).toBeLessThanOrEqual(1);
            const revision = valid[0]?.leadership.isLeader()?.createRevision ?? lastCreateRevision;
            expect(revision).toBeGreaterThanOrEqual(lastCreateRevision);
            if (revision > lastCreateRevision) terms++;
            lastCreateRevision = revision;
          }
        };
        await observeFor(200);
        for (const step of faults) {
          const candidate = world.candidates[step.fault.who];
          if (candidate === undefined) continue;
          applyFault(step.fault, candidate, world.server);
          await observeFor(step.thenMs);
        }
        world.server.setQuorum(true);
        for (const candidate of world.candidates) {
          for (const cure of ['join', 'thaw host', 'thaw store'] as const) {
            applyFault({ do: cure, who: 0 }, candidate, world.server);
          }
          candidate.store.setLoss({ request: 0, answer: 0 });
        }
        await observeFor(12_000);
        expect(world.leaders()).toHaveLength(1);
        await world.stop();
      },
    ),
    { numRuns: numRuns(120) },
  );
  expect(terms).toBeGreaterThan(30);
});

function applyFault(what: Fault, { clock, store, leadership }: Candidate, server: MemoryStoreServer): void {
  switch (what.do) {
    case 'cut':
    case 'join':
      store.setReachable(what.do === 'join');
      break;
    case 'freeze host':
    case 'thaw host':
      clock.setFrozen(what.do === 'freeze host');
      break;
    case 'freeze store':
    case 'thaw store':
      store.setFrozen(what.do === 'freeze store');
      break;
    case 'lose':
      store.setLoss({ request: what.share, answer: what.share });
      break;
    case 'quorum lost':
    case 'quorum back':
      server.setQuorum(what.do === 'quorum back');
      break;
    case 'resign':
      void leadership.resign();
      break;
    case 'compact':
      server.compact();
      break;
  }
}
