// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { createPlanner } from '../planner.ts';
import { host, PLAIN, vm } from '../testing/build.ts';

/**
 * CPU 0 is a core of one thread, 1 and 2 are one core. "i" needs a core, "p2" a thread, "p" a thread: all find room
 * when "p" gets CPU 1 or 2, and plans count on it; without them it would get CPU 0, the core of its own.
 */
it('CPUs of a hybrid node are chosen so that plans keep their cores', () => {
  const node = { id: 0, cpus: [0, 1, 2], smtSiblings: [[1, 2]], memoryMib: 32_768, hugepages: [], distances: [] };
  const hosts = [host('a'), host('b', { rest: { numaNodes: [node] } })];
  const planner = createPlanner({ hosts, placed: [], policy: { ...PLAIN, survive: 'any-one-host' } });
  const own = { cpuPolicy: 'dedicated' as const };
  planner.place(vm('i', { ...own, smt: 'isolate', ha: true, preferredHosts: ['a'] }));
  planner.place(vm('p2', { ...own, ha: true, preferredHosts: ['a'] }));
  planner.place(vm('p', { ...own, pinnedHost: 'b' }));
  expect(planner.drills().flatMap(({ homeless }) => homeless)).toEqual([]);
});
