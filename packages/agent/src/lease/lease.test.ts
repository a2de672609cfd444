// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Lease, type LeaseSession } from './lease.ts';

const TTL_MS = 2500;
const WORTH_MS = 2250;

function open(lease: Lease, controller: string): LeaseSession {
  const session = lease.openSession(controller);
  session.verified(TTL_MS);
  return session;
}

describe('lease', () => {
  it('ends a TTL less margin after the newest send that a majority acknowledged', () => {
    const lease = new Lease(['a', 'b', 'c']);
    const [a, b, c] = ['a', 'b', 'c'].map((name) => open(lease, name)) as [LeaseSession, LeaseSession, LeaseSession];
    a.sent(1n, 1000);
    b.sent(1n, 1100);
    c.sent(1n, 1200);
    a.acknowledged(1n);
    expect(lease.expiresAtMs()).toBe(Number.NEGATIVE_INFINITY);
    c.acknowledged(1n);
    expect(lease.expiresAtMs()).toBe(1000 + WORTH_MS);
    b.acknowledged(1n);
    expect(lease.expiresAtMs()).toBe(1100 + WORTH_MS);
  });

  it('counts configured controllers, not connected ones', () => {
    const lease = new Lease(['a', 'b', 'c', 'd']);
    for (const name of ['a', 'b']) {
      const session = open(lease, name);
      session.sent(1n, 0);
      session.acknowledged(1n);
    }
    expect(lease.expiresAtMs()).toBe(Number.NEGATIVE_INFINITY);
  });

  it('lets one controller never vote twice through two sessions', () => {
    const lease = new Lease(['a', 'b', 'c']);
    for (const atMs of [0, 10, 20]) {
      const session = open(lease, 'a');
      session.sent(1n, atMs);
      session.acknowledged(1n);
    }
    expect(lease.expiresAtMs()).toBe(Number.NEGATIVE_INFINITY);
    expect(() => new Lease(['a', 'a', 'b'])).toThrow(/twice/);
  });

  it('keeps what a former session proved', () => {
    const lease = new Lease(['a', 'b', 'c']);
    const first = open(lease, 'a');
    first.sent(1n, 500);
    const second = open(lease, 'a');
    second.sent(1n, 900);
    const b = open(lease, 'b');
    b.sent(1n, 1000);
    b.acknowledged(1n);
    first.acknowledged(1n);
    expect(lease.expiresAtMs()).toBe(500 + WORTH_MS);
  });

  it('counts nothing before the controller is verified', () => {
    const lease = new Lease(['a']);
    const session = lease.openSession('a');
    session.sent(1n, 0);
    expect(session.acknowledged(1n)).toBe(null);
    session.verified(TTL_MS);
    expect(session.acknowledged(1n)).toBe(0);
    expect(lease.expiresAtMs()).toBe(WORTH_MS);
  });
});

/** One thing that may happen to one of the sessions; a reopened session forgets its numbers, as in real life. */
type Step =
  | { kind: 'send'; controller: number }
  | { kind: 'reopen'; controller: number }
  | { kind: 'ack'; controller: number; session: number; number: bigint };

const steps = (controllers: number) => {
  const controller = fc.nat(controllers - 1);
  return fc.array(
    fc.oneof(
      { weight: 5, arbitrary: fc.record({ kind: fc.constant('send' as const), controller }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('reopen' as const), controller }) },
      {
        weight: 5,
        arbitrary: fc.record({
          kind: fc.constant('ack' as const),
          controller,
          session: fc.nat(3),
          number: fc.bigInt({ min: -1n, max: 30n }),
        }),
      },
    ),
    { maxLength: 120 },
  );
};

describe('lease, by property', () => {
  it('never outlives what a majority can have heard, never moves back, and honours what it did hear', () => {
    const cases = fc.integer({ min: 1, max: 5 }).chain((size) => fc.tuple(fc.constant(size), steps(size)));
    fc.assert(
      fc.property(cases, ([size, script]) => {
        const names = Array.from({ length: size }, (_, index) => `c${index}`);
        const lease = new Lease(names);
        const sessions = names.map((name) => [{ session: open(lease, name), sends: [] as number[], acked: 0n }]);
        // The oracle: per controller the newest send that was acknowledged in the session it was sent in.
        const heard = names.map(() => Number.NEGATIVE_INFINITY);
        let before = lease.expiresAtMs();
        script.forEach((step: Step, index) => {
          const atMs = index * 250;
          const own = sessions[step.controller] ?? [];
          if (step.kind === 'reopen') {
            own.push({ session: open(lease, names[step.controller] ?? ''), sends: [], acked: 0n });
          } else if (step.kind === 'send') {
            const last = own.at(-1);
            last?.sends.push(atMs);
            last?.session.sent(BigInt(last.sends.length), atMs);
          } else {
            const target = own[step.session % own.length];
            const told = target?.session.acknowledged(step.number);
            const sentAtMs = target?.sends[Number(step.number) - 1];
            const isNew = target !== undefined && sentAtMs !== undefined && step.number > target.acked;
            expect(told).toBe(isNew ? sentAtMs : null);
            if (isNew) {
              target.acked = step.number;
              heard[step.controller] = Math.max(heard[step.controller] ?? 0, sentAtMs);
            }
          }
          const majority = Math.floor(size / 2) + 1;
          const newest = [...heard].sort((a, b) => b - a)[majority - 1] ?? 0;
          expect(lease.expiresAtMs()).toBe(newest + WORTH_MS);
          expect(lease.expiresAtMs()).toBeGreaterThanOrEqual(before);
          before = lease.expiresAtMs();
        });
      }),
      { numRuns: 300 },
    );
  });
});
