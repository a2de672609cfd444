// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import { createPlanner } from '../planner.ts';
import { host, PLAIN, vm } from '../testing/build.ts';
import { placeAll } from './place-all.ts';

const GIB = 1024;
const plannerOf = (hosts: number, cores = 4) =>
  createPlanner({
    hosts: Array.from({ length: hosts }, (_, i) => host(`h${i}`, { cores, memoryMib: 8 * GIB })),
    placed: [],
    policy: PLAIN,
  });

test('all: every one of them, in the order in which they were asked for, also where that order would not have fitted', () => {
  const planner = plannerOf(2);
  // In this order the small ones would leave no whole host.
  const vms = [
    vm('a', { vcpus: 1 }),
    vm('b', { vcpus: 1, rules: [{ group: 'x', kind: 'apart', soft: true }] }),
    vm('big', { vcpus: 4 }),
  ];
  const { placed, refused } = placeAll(planner, vms, 'all');
  expect(refused).toEqual([]);
  expect(placed.map(({ vm: { name } }) => name)).toEqual(['a', 'b', 'big']);
  expect(planner.placed()).toHaveLength(3);
});

test('all: none of them when one has no place, and nothing is held', () => {
  const planner = plannerOf(1);
  const { placed, refused } = placeAll(planner, [vm('a', { vcpus: 3 }), vm('b', { vcpus: 2 })], 'all');
  expect(placed).toEqual([]);
  expect(refused.map(({ vm: { name } }) => name)).toEqual(['b']);
  expect(planner.placed()).toEqual([]);
  expect(planner.decide(vm('c', { vcpus: 4 })).ok).toBe(true);
});

test('best-effort: those of the highest priority first, then what is hardest to place', () => {
  const planner = plannerOf(1);
  const vms = [
    vm('low', { vcpus: 2 }),
    vm('own', { vcpus: 2, cpuPolicy: 'dedicated' }),
    vm('high', { vcpus: 2, priority: 10 }),
  ];
  const { placed, refused } = placeAll(planner, vms, 'best-effort');
  expect(placed.map(({ vm: { name } }) => name)).toEqual(['own', 'high']);
  expect(refused.map(({ vm: { name } }) => name)).toEqual(['low']);
});
