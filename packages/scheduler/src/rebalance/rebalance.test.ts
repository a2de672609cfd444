// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Vm } from '../model.ts';
import { createPlanner, type Planner } from '../planner.ts';
import { host, PLAIN, vm } from '../testing/build.ts';
import { rebalance } from './rebalance.ts';

const GIB = 1024;
const LIMITS = { movesMax: 10, gainMin: 50 };

function lopsided(vms: readonly Vm[], hosts = 3): Planner {
  const planner = createPlanner({
    hosts: Array.from({ length: hosts }, (_, i) => host(`h${i}`, { cores: 8, memoryMib: 32 * GIB })),
    placed: [],
    policy: { ...PLAIN, prefer: 'spread' },
  });
  // All on the first host, as after the others were restarted.
  for (const each of vms) planner.place({ ...each, preferredHosts: ['h0'] });
  for (const { vm: each, placement } of planner.placed())
    planner.take({ vm: { ...each, preferredHosts: [] }, placement });
  return planner;
}

test('an overloaded host gives to the others, with few moves, and asking changes nothing', () => {
  const planner = lopsided(Array.from({ length: 6 }, (_, i) => vm(`v${i}`, { vcpus: 1, memoryMib: 4 * GIB })));
  const before = JSON.stringify(planner.placed());
  const moves = rebalance(planner, LIMITS);
  expect(moves.map(({ from, to }) => [from, to.host])).toEqual([
    ['h0', 'h1'],
    ['h0', 'h2'],
    ['h0', 'h1'],
    ['h0', 'h2'],
  ]);
  expect(JSON.stringify(planner.placed())).toBe(before);
});

test('what must stay stays, and what is balanced is left alone', () => {
  const planner = lopsided([vm('a', { memoryMib: 8 * GIB }), vm('b', { memoryMib: 8 * GIB })], 2);
  expect(rebalance(planner, { ...LIMITS, stays: () => true })).toEqual([]);
  const moves = rebalance(planner, LIMITS);
  expect(moves).toHaveLength(1);
  for (const { vm: moved, to } of moves) planner.take({ vm: moved, placement: to });
  expect(rebalance(planner, LIMITS)).toEqual([]);
});

test('each move is possible when those before it are done, and keeps the rules', () => {
  const one = fc.record({
    vcpus: fc.integer({ min: 1, max: 3 }),
    memoryMib: fc.integer({ min: 1, max: 8 }).map((g) => g * GIB),
  });
  fc.assert(
    fc.property(fc.array(one, { maxLength: 8 }), (sizes) => {
      const rules = [{ group: 'x', kind: 'apart', soft: false }] as const;
      const planner = lopsided(sizes.map((each, i) => vm(`v${i}`, { ...each, rules: i < 2 ? rules : [] })));
      for (const { vm: moved, from, to } of rebalance(planner, LIMITS)) {
        expect(planner.placed().find(({ vm: { id } }) => id === moved.id)?.placement.host).toBe(from);
        expect(planner.take({ vm: moved, placement: to })).toEqual([]);
      }
      const apart = planner.placed().filter(({ vm: { name } }) => ['v0', 'v1'].includes(name));
      expect(new Set(apart.map(({ placement }) => placement.host)).size).toBe(apart.length);
    }),
    { numRuns: 60 },
  );
});
