// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { Revision } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import { seededRandom } from '@busbar/core/random';
import { NetworkRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deleteRecord, putRecord, recordKey } from '../records/kinds.ts';
import type { ClusterStore, Write } from '../store/cluster-store.ts';
import { type MemoryStore, MemoryStoreServer } from '../store/memory.ts';
import { ClusterView } from './view.ts';

const network = (name: string) => NetworkRecord.fromPartial({ meta: { id: name, name } });
const put = (name: string, as = name): Write => putRecord('network', name, network(as));

let clock: VirtualClock;
let truth: MemoryStoreServer;
let store: MemoryStore;
let view: ClusterView;
let stop: AbortController;
let errors: string[];

const logger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error: (_fields, message) => errors.push(message),
};

function newView(over: ClusterStore): ClusterView {
  return new ClusterView({ store: over, clock, logger });
}

beforeEach(() => {
  clock = new VirtualClock();
  truth = new MemoryStoreServer({ clock });
  store = truth.client({ clock, random: seededRandom(1), latencyMs: 1 });
  stop = new AbortController();
  errors = [];
  view = newView(store);
});
afterEach(() => stop.abort());

const write = (...writes: Write[]): Revision => truth.txn({ compare: [], writes }).revision;
const names = () => view.tables.network.sorted().map((entry) => entry.record.meta?.name);
async function settled<T>(promise: Promise<T>, limitMs = 20_000): Promise<T> {
  let done = false;
  const mark = () => {
    done = true;
  };
  promise.then(mark, mark);
  expect(await clock.advanceUntil(() => done, limitMs)).toBe(true);
  return promise;
}

describe('ClusterView', () => {
  it('catches up with a revision that only keys of others have raised', async () => {
    truth = new MemoryStoreServer({ clock });
    // As etcd: watchers of our keys are not told of the others' for ten minutes.
    store = truth.client({ clock, random: seededRandom(1), latencyMs: 1, progressIntervalMs: 600_000 });
    view = newView(store);
    void view.run(stop.signal);
    await settled(view.fresh());
    const foreign = truth.txn({ compare: [], writes: [{ kind: 'put', key: 'other/key', value: 'x' }] }).revision;
    expect(await settled(Promise.all([view.fresh(), view.fresh(), view.fresh()]), 1_000)).toEqual([
      foreign,
      foreign,
      foreign,
    ]);
    expect(truth.revision - foreign).toBe(1n);
  });

  it('lists, then watches', async () => {
    write(put('a'), put('b'));
    void view.run(stop.signal);
    await clock.advance(20);
    expect(names()).toEqual(['a', 'b']);
    write(put('c'));
    write(put('a', 'z'));
    write(deleteRecord('network', 'b'));
    await clock.advance(20);
    expect(names()).toEqual(['c', 'z']);
    expect(view.tables.network.find('z')?.id).toBe('a');
    expect(view.tables.network.find('a')?.record.meta?.name).toBe('z');
    expect(view.tables.network.find('b')).toBeUndefined();
    expect(view.revision).toBe(truth.revision);
  });

  it('after a compaction lists again and tells watchers what they missed', async () => {
    const first = write(put('a'), put('b'));
    void view.run(stop.signal);
    await clock.advance(20);
    const since = view.revision;
    store.setReachable(false);
    write(put('c'));
    write(deleteRecord('network', 'a'));
    write(put('b', 'bb'));
    truth.compact();
    await clock.advance(10_000);
    expect(names()).toEqual(['a', 'b']);
    store.setReachable(true);
    await clock.advance(5_000);
    expect(names()).toEqual(['bb', 'c']);
    const told = view.changes.since(since)?.map((change) => [change.id, change.gone?.name ?? null]);
    expect(told).toEqual([
      ['c', null],
      ['b', null],
      ['a', 'a'],
    ]);
    expect(view.changes.since((first - 1n) as Revision)).toBeNull();
  });

  it('is not stopped by a record that it cannot read', async () => {
    write(put('a'), { kind: 'put', key: recordKey('network', 'bad'), value: '{' });
    write({ kind: 'put', key: recordKey('network', 'null'), value: 'null' });
    write({ kind: 'put', key: 'busbar/toString/x', value: '{}' }, { kind: 'put', key: 'busbar/odd', value: '' });
    void view.run(stop.signal);
    await clock.advance(20);
    write(put('c'), { kind: 'put', key: recordKey('network', 'a'), value: 'no JSON' });
    await clock.advance(20);
    expect(names()).toEqual(['a', 'c']);
    expect(errors.length).toBe(3);
  });

  it('survives an outage of the store and stops when told', async () => {
    truth.setQuorum(false);
    const running = view.run(stop.signal);
    await clock.advance(30_000);
    truth.setQuorum(true);
    write(put('a'));
    await clock.advance(5_000);
    expect(names()).toEqual(['a']);
    truth.setQuorum(false);
    await clock.advance(60_000);
    truth.setQuorum(true);
    write(put('b'));
    await clock.advance(5_000);
    expect(names()).toEqual(['a', 'b']);
    stop.abort();
    await settled(running);
  });

  it('notices a store that went back in time', async () => {
    write(put('a'));
    write(put('b'));
    write(put('c'));
    const backup = new MemoryStoreServer({ clock });
    backup.txn({ compare: [], writes: [put('a')] });
    const old = backup.client({ clock, random: seededRandom(2) });
    let present: ClusterStore = store;
    const switching = new Proxy({} as ClusterStore, {
      get: (_target, key) => (Reflect.get(present, key) as (...args: unknown[]) => unknown).bind(present),
    });
    view = newView(switching);
    void view.run(stop.signal);
    await clock.advance(20);
    const { era } = view.changes;
    const since = view.revision;
    present = old;
    await store.close();
    await clock.advance(5_000);
    expect(names()).toEqual(['a']);
    expect(view.revision).toBe(backup.revision);
    expect(view.changes.era).toBe(era + 1);
    expect(view.changes.since(since)).toBeNull();
    expect(errors).toContain('the cluster store went back in time: was it restored from a backup?');
    backup.txn({ compare: [], writes: [put('d')] });
    await clock.advance(1_000);
    expect(names()).toEqual(['a', 'd']);
  });

  it('finds out by the first read when the store is restored beneath it and its watch is silent', async () => {
    write(put('a'));
    const backup = truth.snapshot();
    write(put('b'));
    write(put('c'));
    void view.run(stop.signal);
    await clock.advance(20);
    truth.restore(backup);
    await clock.advance(5_000);
    expect(names()).toEqual(['a', 'b', 'c']);
    expect(await settled(view.fresh())).toBe(backup.revision);
    expect(names()).toEqual(['a']);
    write(put('d'));
    await settled(view.fresh());
    expect(names()).toEqual(['a', 'd']);
  });
});

describe('waitFor and fresh', () => {
  it('waitFor ends when the view is there, and tells when it does not get there', async () => {
    void view.run(stop.signal);
    await clock.advance(20);
    const waiting = view.waitFor((truth.revision + 1n) as Revision);
    write(put('a'));
    await settled(waiting);
    const never = view.waitFor((truth.revision + 5n) as Revision);
    await expect(settled(never)).rejects.toMatchObject({ kind: 'unavailable', reason: 'VIEW_BEHIND' });
  });

  it('a fresh() that began after a write sees it, however the calls overlap', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer(),
        fc.array(fc.record({ write: fc.boolean(), pauseMs: fc.constantFrom(0, 0, 1, 3, 9, 40) }), { maxLength: 25 }),
        async (seed, steps) => {
          const at = new VirtualClock();
          const server = new MemoryStoreServer({ clock: at });
          const client = server.client({ clock: at, random: seededRandom(seed), latencyMs: [0.5, 20] });
          const own = new ClusterView({ store: client, clock: at, logger });
          const end = new AbortController();
          void own.run(end.signal);
          const calls: Promise<void>[] = [];
          for (const step of steps) {
            if (step.write) server.txn({ compare: [], writes: [put(`n${server.revision}`)] });
            const before = server.revision;
            calls.push(
              own.fresh().then((revision) => {
                expect(revision >= before).toBe(true);
                expect(own.revision >= before).toBe(true);
              }),
            );
            await at.advance(step.pauseMs);
          }
          await at.advance(5_000);
          await Promise.all(calls);
          end.abort();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('shares one read among callers that come together', async () => {
    void view.run(stop.signal);
    await clock.advance(20);
    let reads = 0;
    const get = store.get.bind(store);
    store.get = (key) => {
      reads++;
      return get(key);
    };
    await settled(Promise.all(Array.from({ length: 50 }, () => view.fresh())));
    expect(reads).toBe(1);
    const first = view.fresh();
    await Promise.resolve();
    const later = Array.from({ length: 50 }, () => view.fresh());
    await settled(Promise.all([first, ...later]));
    expect(reads).toBeLessThanOrEqual(3);
  });

  it('without quorum answers every caller within five seconds', async () => {
    void view.run(stop.signal);
    await clock.advance(20);
    truth.setQuorum(false);
    const calls: Promise<unknown>[] = [];
    for (let i = 0; i < 12; i++) {
      const begunMs = clock.nowMs();
      calls.push(
        view.fresh().then(
          () => 'answered',
          (error: { kind: string }) => [error.kind, clock.nowMs() - begunMs < 5_000],
        ),
      );
      await clock.advance(300);
    }
    await clock.advance(20_000);
    for (const outcome of await Promise.all(calls)) expect(outcome).toEqual(['unavailable', true]);
  });
});
