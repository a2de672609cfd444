// SPDX-License-Identifier: Apache-2.0
import type { Revision } from '@busbar/core/ids';
import { NetworkRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import type { WatchNetworksResponse } from '@busbar/proto/gen/busbar/v1/network';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deleteRecord, putRecord } from '../records/kinds.ts';
import type { Write } from '../store/cluster-store.ts';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';

const { PUT, DELETE, PROGRESS, RESYNC } = ChangeKind;
const put = (name: string, label = ''): Write =>
  putRecord('network', name, NetworkRecord.fromPartial({ meta: { id: name, name, labels: { v: label } } }));

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const write = (...writes: Write[]) => rig.truth.txn({ compare: [], writes }).revision;

function watch(of: Rig, revision: bigint, hangUp = new AbortController()) {
  const bound = of.services.find((each) => each.definition.name === 'NetworkService');
  const rpc = bound?.definition.methods.watchNetworks;
  const method = bound?.methods.watchNetworks;
  if (bound === undefined || rpc === undefined || method === undefined) throw new Error('no WatchNetworks');
  const run = of.gate().stream(bound.definition.fullName, rpc, method);
  const stream = run({ revision }, testCaller('viewer'), hangUp.signal)[Symbol.asyncIterator]();
  return {
    hangUp,
    next: async () => (await of.run(stream.next())).value as WatchNetworksResponse | undefined,
    close: () => stream.return?.(),
  };
}
const told = (message: WatchNetworksResponse | undefined) => [message?.change, message?.network?.meta?.name ?? ''];

describe('a watch', () => {
  it('sends what exists, a mark, and then each change', async () => {
    write(put('a'), put('b'));
    const stream = watch(rig, 0n);
    expect([told(await stream.next()), told(await stream.next())]).toEqual([
      [PUT, 'a'],
      [PUT, 'b'],
    ]);
    const mark = await stream.next();
    expect(told(mark)).toEqual([PROGRESS, '']);
    expect(mark?.progress?.revision).toBe(rig.truth.revision);
    write(put('c'));
    expect(told(await stream.next())).toEqual([PUT, 'c']);
    write(deleteRecord('network', 'a'));
    const gone = await stream.next();
    expect(told(gone)).toEqual([DELETE, 'a']);
    expect(gone?.network?.meta?.id).toBe('a');
    expect(gone?.progress?.revision).toBe(rig.truth.revision);
  });

  it('tells how far it is while nothing happens to its kind, also when others are busy', async () => {
    const stream = watch(rig, 0n);
    const first = await stream.next();
    expect(told(first)).toEqual([PROGRESS, '']);
    const timer = () => {
      write(
        putRecord('volume', 'v', {
          meta: undefined,
          spec: undefined,
          phase: 'VOLUME_PHASE_READY',
          ownerVmId: '',
          growingToBytes: 0n,
        }),
      );
      rig.clock.timer(1_000, timer);
    };
    timer();
    const beganMs = rig.clock.nowMs();
    const next = await stream.next();
    expect(told(next)).toEqual([PROGRESS, '']);
    expect(rig.clock.nowMs() - beganMs).toBeLessThan(11_500);
    expect(next?.progress?.revision).toBeGreaterThan(first?.progress?.revision ?? 0n);
  });

  it('sends a reader that was slow the present state, once', async () => {
    const stream = watch(rig, 0n);
    await stream.next();
    for (let i = 0; i < 500; i++) write(put('a', String(i)));
    write(put('b'));
    await rig.clock.advance(10);
    const message = await stream.next();
    expect(told(message)).toEqual([PUT, 'a']);
    expect(message?.network?.meta?.labels).toEqual({ v: '499' });
    expect(told(await stream.next())).toEqual([PUT, 'b']);
  });

  it('asks for a new list when history is forgotten or of another store', async () => {
    const old = write(put('a'));
    for (let i = 0; i < 12_000; i++) write(put('b', String(i)));
    await rig.clock.advance(100);
    expect(told(await watch(rig, old).next())).toEqual([RESYNC, '']);
    expect(told(await watch(rig, rig.truth.revision + 1_000n).next())).toEqual([RESYNC, '']);
    const stream = watch(rig, 0n);
    await stream.next();
    await stream.next();
    await stream.next();
    rig.view.changes.restart();
    write(put('c'));
    expect(told(await stream.next())).toEqual([RESYNC, '']);
    expect(await stream.next()).toBeUndefined();
  });

  it('ends when its caller hangs up, and leaves no listeners behind', async () => {
    let listeners = 0;
    const hangUp = new AbortController();
    const { signal } = hangUp;
    const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      listeners++;
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      listeners--;
      remove(...args);
    };
    const stream = watch(rig, 0n, hangUp);
    for (let i = 0; i < 30; i++) expect(told(await stream.next())[0]).toBe(PROGRESS);
    expect(listeners).toBeLessThanOrEqual(1);
    const last = stream.next();
    hangUp.abort();
    expect(await last).toBeUndefined();
  });

  it('resumed from any message of any stream misses nothing', async () => {
    const change = fc.record({
      name: fc.constantFrom('a', 'b', 'c', 'd'),
      gone: fc.boolean(),
      pauseMs: fc.constantFrom(0, 0, 5),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { maxLength: 20 }),
        fc.array(fc.nat(4), { maxLength: 12 }),
        async (changes, cuts) => {
          const own = new Rig();
          await own.start();
          const known = new Map<string, string>();
          let at = 0n;
          let stream = watch(own, at);
          const take = async () => {
            const message = await stream.next();
            const name = message?.network?.meta?.name ?? '';
            if (message?.change === PUT) known.set(name, message.network?.meta?.labels.v ?? '');
            if (message?.change === DELETE) known.delete(name);
            if (message?.progress !== undefined) at = message.progress.revision;
          };
          for (const [index, { name, gone, pauseMs }] of changes.entries()) {
            own.truth.txn({ compare: [], writes: [gone ? deleteRecord('network', name) : put(name, String(index))] });
            if (pauseMs > 0) await own.clock.advance(pauseMs);
            const reads = cuts[index];
            if (reads === undefined) continue;
            for (let i = 0; i < reads; i++) await take();
            await stream.close();
            // Whoever begins anew forgets what it knew; a resumed one keeps it.
            if (at === 0n) known.clear();
            stream = watch(own, at);
          }
          const target = own.truth.revision as Revision;
          if (at === 0n) known.clear();
          while (at < target) await take();
          await own.clock.advance(50);
          const truth = own.view.tables.network.sorted().map((entry) => [entry.id, entry.record.meta?.labels.v]);
          expect(new Map(known)).toEqual(new Map(truth as [string, string][]));
          own.stop();
        },
      ),
      { numRuns: 60 },
    );
  });
});
