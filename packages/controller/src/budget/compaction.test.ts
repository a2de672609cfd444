// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { Revision } from '@busbar/core/ids';
import { silentLogger } from '@busbar/core/log';
import { seededRandom } from '@busbar/core/random';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { put } from '../store/examine.fixture.ts';
import { type MemoryStore, MemoryStoreServer } from '../store/memory.ts';
import { compactRegularly, planCompaction } from './compaction.ts';
import { FillWatch } from './fill.ts';

const at = (second: number, revision: number) => ({ atMs: second * 1_000, revision: BigInt(revision) as Revision });
const rev = (revision: number) => BigInt(revision) as Revision;

describe('history', () => {
  const seen = [at(0, 1_000), at(100, 3_000), at(280, 4_000), at(290, 5_000), at(300, 6_000)];
  it.each([
    ['is kept for five minutes', 'free', 299, 0, null],
    ['is forgotten then', 'free', 300, 0, 1_000],
    ['is left where there is little of it', 'free', 300, 500, null],
    ['is kept for 10 s while the store fills up', 'filling', 300, 1_000, 5_000],
    ['is forgotten to the last revision then', 'nearly-full', 299, 3_999, 4_000],
    ['that is forgotten is left alone', 'critical', 300, 5_000, null],
  ] as const)('%s', (_what, level, second, compacted, wanted) => {
    const due = planCompaction(seen, rev(compacted), level, second * 1_000);
    expect(due).toBe(wanted === null ? null : rev(wanted));
  });
});

describe('the leader', () => {
  let clock: VirtualClock;
  let truth: MemoryStoreServer;
  let store: MemoryStore;
  let over: AbortController;
  let compacting: Promise<void>;

  beforeEach(() => {
    clock = new VirtualClock();
    truth = new MemoryStoreServer({ clock, quotaBytes: 4_000_000 });
    store = truth.client({ clock, random: seededRandom(1) });
    over = new AbortController();
    const fill = new FillWatch({
      store,
      storage: { spool: async () => null },
      quotaBytes: 4_000_000,
      clock,
      logger: silentLogger,
    });
    void fill.run(over.signal);
    compacting = compactRegularly({
      store,
      view: truth,
      fill: () => fill.now(),
      clock,
      logger: silentLogger,
      leader: { signal: over.signal, txn: (transaction) => store.txn(transaction) },
      pulseKey: 'pulse',
    });
  });
  afterEach(async () => {
    over.abort();
    await clock.advance(10_000);
    await compacting;
  });

  it('keeps a store that is written over and over within its quota', async () => {
    let refused = 0;
    // 20 KB a second: an hour of it is eighteen times the quota.
    for (let second = 0; second < 3_600; second++) {
      await put(store, 'vm/1', String(second).padEnd(20_000, '.')).catch(() => refused++);
      await clock.advance(1_000);
    }
    expect(refused).toBe(0);
    expect(truth.usage().fileBytes).toBeLessThan(4_000_000 * 0.55);
  });

  it('goes on while the store does not answer, and afterwards', async () => {
    for (let n = 0; n < 80; n++) await put(store, 'vm/1', 'x'.repeat(20_000));
    truth.setQuorum(false);
    await clock.advance(60_000);
    truth.setQuorum(true);
    await clock.advance(60_000);
    expect(truth.usage().inUseBytes).toBeLessThan(200_000);
  });
});
