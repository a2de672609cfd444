// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { costOf, WriteBudget } from './write-budget.ts';

const MIB = 1024 ** 2;
const QUOTA = 2048 * MIB;
const REFILL_MS = 300_000;

let clock: VirtualClock;
let budget: WriteBudget;
beforeEach(() => {
  clock = new VirtualClock();
  budget = new WriteBudget(clock, QUOTA, 3);
});

/** What a caller writes until he is refused. */
function flood(name: string, bytes: number, of = budget): { readonly written: number; readonly reason: string } {
  for (let written = 0; ; written += bytes) {
    try {
      of.spend(name, bytes);
    } catch (error) {
      return { written, reason: (error as { reason: string }).reason };
    }
  }
}

describe('the cost of a change', () => {
  it('counts keys, values in bytes, and what each write adds', () => {
    const writes = [{ kind: 'put', key: 'k', value: 'äb' } as const, { kind: 'delete', key: 'gone' } as const];
    expect(costOf({ compare: [], writes })).toBe(128 + 1 + 3 + 128 + 4);
  });
});

describe('the budget of bytes', () => {
  it('lets honest automation through: 200 VMs with 10 KB of user data at once, and 17,000 small changes', () => {
    for (let n = 0; n < 200; n++) budget.spend('client/ansible', 20_000);
    for (let n = 0; n < 17_000; n++) budget.spend('client/bench', 3_500);
  });

  it('ends what one caller writes, says how much and when there is more, and lets him go on then', () => {
    expect(flood('client/a', 92_000).written / MIB).toBeCloseTo(85.3, 0);
    expect(() => budget.spend('client/a', 92_000)).toThrow(
      /^"client\/a" has used up what one caller may write into the cluster store: 85.33 MiB at once and 291.27 KiB a second after that; nothing was changed \(this change has 89.84 KiB\)$/,
    );
    try {
      budget.spend('client/a', 92_000);
    } catch (error) {
      expect(error).toMatchObject({
        kind: 'exhausted',
        reason: 'WRITE_BUDGET_SPENT',
        hint: 'send it again; there is room in 1 s',
      });
    }
  });

  it('leaves something to others, and to each caller a part that no number of others takes', () => {
    flood('client/a', 92_000);
    const second = flood('client/b', 92_000);
    expect(second.written / MIB).toBeGreaterThan(25);
    for (const name of ['client/c', 'client/d', 'client/e']) {
      const { written, reason } = flood(name, 4_000);
      expect(written / MIB).toBeGreaterThan(1.7);
      expect(reason).toBe('WRITE_BUDGET_SPENT');
    }
    expect(() => budget.spend('client/c', 4_000)).toThrow(/^the callers of this controller have used up/);
  });

  it('stays below its share of the quota, whoever calls which controller how often: three of them, two greedy callers, five minutes', async () => {
    const controllers = [budget, new WriteBudget(clock, QUOTA, 3), new WriteBudget(clock, QUOTA, 3)];
    let sum = 0;
    for (let at = 0; at <= REFILL_MS; at += 1_000) {
      for (const each of controllers)
        for (const name of ['client/a', 'client/b']) sum += flood(name, 92_000, each).written;
      await clock.advance(1_000);
    }
    expect(sum).toBeLessThan(QUOTA * (1 / 6) * 2.1);
    expect(sum).toBeGreaterThan(QUOTA * (1 / 6) * 1.8);
  });

  it('passes the largest transaction there is, however small the quota', () => {
    new WriteBudget(clock, 16 * MIB, 5).spend('client/a', 768 * 1024 + 128 * 129);
  });

  it('takes back what was not written, once per call', () => {
    const giveBack = budget.spend('client/a', 10 * MIB);
    giveBack();
    expect(flood('client/a', MIB).written).toBe(85 * MIB);
  });

  it('has one allowance for all callers beyond a thousand, until those before have been quiet', async () => {
    for (let n = 0; n < 1_000; n++) budget.spend(`client/${n}`, 1_000);
    flood('client/late', 92_000);
    expect(() => budget.spend('client/later', 92_000)).toThrow(/used up/);
    await clock.advance(REFILL_MS);
    expect(flood('client/latest', 92_000).written / MIB).toBeGreaterThan(80);
  });

  it('never lets a caller, or all without their own parts, beyond burst and rate, whatever comes when', async () => {
    const step = fc.record({ name: fc.nat(3), bytes: fc.integer({ min: 1, max: 40 * MIB }), waitMs: fc.nat(20_000) });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const own = new VirtualClock();
        const under = new WriteBudget(own, QUOTA, 3);
        const began = own.nowMs();
        const written = new Map<number, number>();
        for (const { name, bytes, waitMs } of steps) {
          await own.advance(waitMs);
          try {
            under.spend(`client/${name}`, bytes);
            written.set(name, (written.get(name) ?? 0) + bytes);
          } catch {}
          const filled = 1 + (own.nowMs() - began) / REFILL_MS;
          const whole = QUOTA / 18;
          const all = [...written.values()].reduce((sum, value) => sum + value, 0);
          for (const value of written.values()) expect(value).toBeLessThanOrEqual(whole * 0.75 * filled + 1);
          expect(all).toBeLessThanOrEqual(whole * filled * (1 + 4 / 64) + 1);
        }
      }),
      { numRuns: numRuns(60) },
    );
  });
});
