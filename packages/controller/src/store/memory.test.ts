// SPDX-License-Identifier: Apache-2.0
import { systemClock } from '@busbar/core/clock/clock';
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { BusbarError } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import { seededRandom } from '@busbar/core/random';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { clusterStoreConformance } from './conformance.ts';
import { put, revisionOf } from './examine.fixture.ts';
import { type MemoryStore, type MemoryStoreOptions, MemoryStoreServer } from './memory.ts';

clusterStoreConformance('memory', async () => {
  const server = new MemoryStoreServer({ clock: systemClock });
  const options = { clock: systemClock, random: seededRandom(1), latencyMs: [0, 2] } as const;
  return {
    store: server.client(options),
    other: server.client(options),
    client: (more) => server.client({ ...options, ...more }),
    compact: async (revision) => server.compact(revision),
    close: async () => {},
  };
});

describe('memory: the simulated network', () => {
  function world(options: Partial<MemoryStoreOptions> = {}) {
    const clock = new VirtualClock();
    const server = new MemoryStoreServer({ clock });
    const client = server.client({ clock, random: seededRandom(7), latencyMs: 10, ...options });
    const witness = server.client({ clock, random: seededRandom(8) });
    return { clock, server, client, witness };
  }
  /** The outcome of a call once `advanceMs` have passed. */
  async function outcome(clock: VirtualClock, call: Promise<unknown>, advanceMs = 10_000): Promise<string> {
    let result = 'pending';
    call.then(
      () => {
        result = 'done';
      },
      (error: BusbarError) => {
        result = error.kind;
      },
    );
    await clock.advanceUntil(() => result !== 'pending', advanceMs);
    return result;
  }

  test('a call that never left is "unavailable" after the deadline, and was not applied', async () => {
    const { clock, client, witness } = world();
    client.setReachable(false);
    const started = clock.nowMs();
    expect(await outcome(clock, put(client, 'k', '1'))).toBe('unavailable');
    expect(clock.nowMs() - started).toBe(3_500);
    expect((await witness.get('k')).value).toBeNull();
  });

  test('a call waits for the link to come back within its deadline', async () => {
    const { clock, client } = world();
    client.setReachable(false);
    const call = put(client, 'k', '1');
    await clock.advance(1_000);
    client.setReachable(true);
    expect(await outcome(clock, call)).toBe('done');
  });

  test.each([
    ['request', 5, null],
    ['answer', 15, '1'],
  ])('a write whose %s was lost is "timeout"', async (_, cutAfterMs, stored) => {
    const { clock, client, witness } = world();
    const call = put(client, 'k', '1');
    await clock.advance(cutAfterMs);
    client.setReachable(false);
    expect(await outcome(clock, call)).toBe('timeout');
    expect((await witness.get('k')).value?.value ?? null).toBe(stored);
  });

  test('a lost read is "unavailable"', async () => {
    const { clock, client } = world();
    client.setLoss({ request: 0, answer: 1 });
    expect(await outcome(clock, client.get('k'))).toBe('unavailable');
  });

  test('a frozen member carries out what it received after the thaw', async () => {
    const { clock, client, witness } = world();
    client.setFrozen(true);
    expect(await outcome(clock, put(client, 'k', 'late'))).toBe('timeout');
    expect((await witness.get('k')).value).toBeNull();
    client.setFrozen(false);
    await clock.advance(100);
    expect((await witness.get('k')).value?.value).toBe('late');
  });

  test('without quorum nothing answers and no lease expires', async () => {
    const { clock, server, client, witness } = world();
    const granting = client.grantLease(2_000);
    await clock.advance(20);
    const lease = await granting;
    const writing = client.txn({ compare: [], writes: [{ kind: 'put', key: 'k', value: '', lease: lease.id }] });
    expect(await outcome(clock, writing)).toBe('done');
    server.setQuorum(false);
    expect(await outcome(clock, client.get('k'))).toBe('unavailable');
    expect(await outcome(clock, client.ping(500))).toBe('unavailable');
    await clock.advance(20_000);
    server.setQuorum(true);
    await clock.advance(1_900);
    expect((await witness.get('k')).value).not.toBeNull();
    await clock.advance(200);
    expect((await witness.get('k')).value).toBeNull();
  });

  test('a lease counts from the sending of its renewal, on the client clock', async () => {
    const { clock, client } = world({ latencyMs: 100 });
    const granting = client.grantLease(3_000);
    await clock.advance(200);
    const lease = await granting;
    expect(lease.validUntilMs()).toBe(2_700);
    await clock.advance(800);
    const renewing = lease.renew();
    await clock.advance(150);
    expect(lease.validUntilMs()).toBe(2_700);
    await clock.advance(50);
    await renewing;
    expect(lease.validUntilMs()).toBe(1_000 + 2_700);
  });

  test('old history is forgotten by itself', async () => {
    const clock = new VirtualClock();
    const server = new MemoryStoreServer({ clock, keepRevisions: 8 });
    for (let i = 0; i < 100; i++) server.txn({ compare: [], writes: [{ kind: 'put', key: 'k', value: String(i) }] });
    expect(server.changesSince('', (server.revision - 20n) as Revision).kind).toBe('compacted');
    expect(server.changesSince('', (server.revision - 8n) as Revision)).toMatchObject({ kind: 'changes' });
  });

  type Step = { readonly do: 'put' | 'delete' | 'cut' | 'join' | 'freeze' | 'thaw' | 'wait'; readonly n: number };
  const steps = fc.array(
    fc.record<Step>({
      do: fc.constantFrom('put', 'put', 'delete', 'cut', 'join', 'freeze', 'thaw', 'wait'),
      n: fc.nat({ max: 40 }),
    }),
    { maxLength: 60 },
  );

  async function play(
    seed: number,
    script: readonly Step[],
    client: (options: MemoryStoreOptions) => MemoryStore,
    clock: VirtualClock,
  ) {
    const store = client({ clock, random: seededRandom(seed), latencyMs: [1, 30] });
    const writer = client({ clock, random: seededRandom(seed + 1), latencyMs: [0, 5] });
    const seen: string[] = [];
    const abort = new AbortController();
    const watching = (async () => {
      for await (const batch of store.watch('k/', 1n as Revision, abort.signal)) {
        if (batch.kind === 'events') seen.push(...batch.events.map((event) => `${revisionOf(event)}`));
      }
    })();
    for (const step of script) {
      const key = `k/${step.n % 3}`;
      if (step.do === 'put') await outcome(clock, put(writer, key, String(step.n)));
      else if (step.do === 'delete')
        await outcome(clock, writer.txn({ compare: [], writes: [{ kind: 'delete', key }] }));
      else if (step.do === 'wait') await clock.advance(step.n);
      else if (step.do === 'cut' || step.do === 'join') store.setReachable(step.do === 'join');
      else store.setFrozen(step.do === 'freeze');
    }
    store.setReachable(true);
    store.setFrozen(false);
    await clock.advance(100);
    abort.abort();
    await watching;
    return seen;
  }

  test('a watch sees each change exactly once, whatever happens to the link; one seed, one trace', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), steps, async (seed, script) => {
        const traces: string[][] = [];
        for (let run = 0; run < 2; run++) {
          const clock = new VirtualClock();
          const server = new MemoryStoreServer({ clock });
          const seen = await play(seed, script, (options) => server.client(options), clock);
          const changes = server.changesSince('k/', 1n as Revision);
          expect(seen).toEqual(changes.kind === 'changes' ? changes.events.map((e) => `${revisionOf(e)}`) : []);
          traces.push([...seen, `${clock.nowMs()}`]);
        }
        expect(traces[0]).toEqual(traces[1]);
      }),
      { numRuns: 40 },
    );
  });
});

describe('memory: a restored snapshot', () => {
  test('has the records and the revision of the backup, a new log, and leases that begin anew', async () => {
    const clock = new VirtualClock();
    const server = new MemoryStoreServer({ clock });
    const store = server.client({ clock, random: seededRandom(1) });
    const lease = server.grantLease(3_000);
    server.txn({ compare: [], writes: [{ kind: 'put', key: 'k/leased', value: '1', lease }] });
    for (let i = 0; i < 50; i++) server.txn({ compare: [], writes: [{ kind: 'put', key: 'k/a', value: `${i}` }] });
    const before = server.history();
    expect(before.revision - before.logLength).toBeLessThanOrEqual(1n);
    const backup = server.snapshot();
    await clock.advance(10_000);
    server.txn({ compare: [], writes: [{ kind: 'put', key: 'k/b', value: 'lost' }] });
    server.restore(backup, 'another');
    const keys = async () => (await store.list('k/')).value.map(({ key, value }) => [key, value]);
    expect(await keys()).toEqual([
      ['k/a', '49'],
      ['k/leased', '1'],
    ]);
    expect(await store.history()).toEqual({ clusterId: 'another', logLength: 3n, revision: before.revision });
    await clock.advance(4_000);
    expect(await keys()).toEqual([['k/a', '49']]);
  });
});
