// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Vm } from '../model.ts';
import { createPlanner, type Planner } from '../planner.ts';
import { host, PLAIN, vm } from '../testing/build.ts';
import { adviceFor } from './advice.ts';

const GIB = 1024;

function filled(hosts: number, vms: readonly Vm[]): Planner {
  const planner = createPlanner({
    hosts: Array.from({ length: hosts }, (_, i) => host(`h${i}`, { cores: 4, memoryMib: 8 * GIB })),
    placed: [],
    policy: PLAIN,
  });
  for (const each of vms) planner.place(each);
  return planner;
}

test('the smallest move, the least important stop, the largest part that fits', () => {
  const planner = filled(2, [
    vm('small', { vcpus: 1, memoryMib: GIB, preferredHosts: ['h0'] }),
    vm('middle', { vcpus: 2, memoryMib: 2 * GIB, preferredHosts: ['h1'] }),
  ]);
  const newcomer = vm('new', { vcpus: 4, memoryMib: 2 * GIB, priority: 5 });
  expect(planner.decide(newcomer).ok).toBe(false);
  expect(adviceFor(planner, newcomer)).toMatchObject([
    { kind: 'move', vm: { name: 'small' }, from: 'h0', to: { host: 'h1' }, placement: { host: 'h0' } },
    { kind: 'stop', vm: { name: 'small' }, host: 'h0', placement: { host: 'h0' } },
    { kind: 'resize', vcpus: 3, memoryMib: 2 * GIB },
  ]);
});

test('what is pinned is not moved, and nobody of equal priority is stopped', () => {
  const planner = filled(2, [
    vm('pinned', { vcpus: 1, pinnedHost: 'h0' }),
    vm('other', { vcpus: 1, pinnedHost: 'h1' }),
  ]);
  expect(adviceFor(planner, vm('new', { vcpus: 4 })).map(({ kind }) => kind)).toEqual(['resize']);
});

test('whatever is advised works, and asking changes nothing', () => {
  const size = fc.record({
    vcpus: fc.integer({ min: 1, max: 4 }),
    memoryMib: fc.integer({ min: 1, max: 8 }).map((g) => g * GIB),
    priority: fc.integer({ min: 0, max: 3 }),
  });
  fc.assert(
    fc.property(fc.array(size, { maxLength: 12 }), size, (sizes, wanted) => {
      const planner = filled(
        3,
        sizes.map((each, i) => vm(`v${i}`, each)),
      );
      const newcomer = vm('new', wanted);
      if (planner.decide(newcomer).ok) return;
      const before = JSON.stringify(planner.placed());
      const advice = adviceFor(planner, newcomer);
      expect(JSON.stringify(planner.placed())).toBe(before);
      expect(planner.decide(newcomer).ok).toBe(false);
      for (const each of advice) {
        const tried = filled(
          3,
          sizes.map((one, i) => vm(`v${i}`, one)),
        );
        if (each.kind === 'resize') {
          expect(tried.place({ ...newcomer, vcpus: each.vcpus, memoryMib: each.memoryMib }).ok).toBe(true);
          continue;
        }
        expect(tried.release(each.vm.id)).toBe(true);
        expect(tried.take({ vm: newcomer, placement: each.placement })).toEqual([]);
        if (each.kind === 'move') expect(tried.take({ vm: each.vm, placement: each.to })).toEqual([]);
      }
    }),
    { numRuns: 60 },
  );
});
