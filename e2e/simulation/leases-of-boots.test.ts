// SPDX-License-Identifier: Apache-2.0
import { Lease, type LeaseSession } from '@busbar/agent/lease/lease';
import { type Boot, Granter } from '@busbar/controller/lease/granter';
import { seededRandom } from '@busbar/core/random';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

const TTL_MS = 2_500;

/**
 * Goal: no interleaving gives two boots of one host leases at the same moment. Method: three boots with the agent's own Lease,
 * three or five granters, clocks whose rates differ by up to 9 % of each other, messages that take up to 4 s each way or get
 * lost, boots and granters that stop and go on, granters that are started anew with nothing remembered, links that are cut.
 * True time is known to the test alone.
 */
interface Machine {
  readonly lease: Lease;
  readonly sessions: readonly LeaseSession[];
  readonly rate: number;
  number: bigint;
}

function overlaps(seed: number, options: { readonly wait?: boolean; readonly guard?: boolean } = {}): number {
  const random = seededRandom(seed);
  const controllers = random.next() < 0.5 ? ['c1', 'c2', 'c3'] : ['c1', 'c2', 'c3', 'c4', 'c5'];
  const rate = () => 0.955 + random.next() * 0.09;
  const boots: Boot[] = Array.from({ length: 3 }, (_, i) => ({ bootId: `b${i}`, address: `10.0.0.${i}` }));
  const machines = boots.map((): Machine => {
    const lease = new Lease(controllers);
    const sessions = controllers.map((controller) => lease.openSession(controller));
    for (const session of sessions) session.verified(TTL_MS);
    return { lease, sessions, rate: rate(), number: 0n };
  });
  const granters = controllers.map(() => ({
    rate: rate(),
    granter: new Granter({ startedAtMs: -1_000_000, leaseTtlMs: TTL_MS }),
  }));
  const cut = new Set<string>();
  const pending: { readonly atMs: number; readonly run: (nowMs: number) => void }[] = [];
  const delay = () => (random.next() < 0.9 ? random.next() * 40 : random.next() * 4_000);
  let found = 0;
  for (let nowMs = 0; nowMs < 40_000; nowMs += 25) {
    for (const message of pending.splice(0)) {
      if (message.atMs > nowMs) pending.push(message);
      else message.run(nowMs);
    }
    if (random.next() < 0.02) {
      const link = `${Math.floor(random.next() * machines.length)}-${Math.floor(random.next() * controllers.length)}`;
      if (!cut.delete(link)) cut.add(link);
    }
    if (random.next() < 0.004) {
      const victim = granters[Math.floor(random.next() * granters.length)] as (typeof granters)[number];
      const startedAtMs = options.wait === false ? -1_000_000 : nowMs * victim.rate;
      victim.granter = new Granter({ startedAtMs, leaseTtlMs: TTL_MS });
    }
    if (nowMs % 250 === 0)
      for (const [m, machine] of machines.entries()) {
        const number = ++machine.number;
        for (const [c, session] of machine.sessions.entries()) {
          if (cut.has(`${m}-${c}`)) continue;
          session.sent(number, nowMs * machine.rate);
          const hear = (atMs: number) => {
            const { granter, rate: ticks } = granters[c] as (typeof granters)[number];
            const host = options.guard === false ? `h${m}` : 'h';
            if (granter.hear(host, boots[m] as Boot, atMs * ticks).kind !== 'granted') return;
            pending.push({ atMs: atMs + delay(), run: () => session.acknowledged(number) });
          };
          pending.push({ atMs: nowMs + delay(), run: hear });
        }
      }
    if (machines.filter(({ lease, rate: ticks }) => lease.expiresAtMs() > nowMs * ticks).length > 1) found++;
  }
  return found;
}

describe('granters together', () => {
  it('never grant overlapping leases to two boots of a host', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 31 }), (seed) => overlaps(seed) === 0),
      { numRuns: 150 },
    );
  });

  it('would without the guard, and without the wait after a start: the search finds both', () => {
    const seeds = Array.from({ length: 60 }, (_, i) => i);
    expect(seeds.some((seed) => overlaps(seed, { guard: false }) > 0)).toBe(true);
    expect(seeds.some((seed) => overlaps(seed, { wait: false }) > 0)).toBe(true);
  });
});
