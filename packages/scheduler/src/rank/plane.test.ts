// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import { wasteTable } from './plane.ts';

const EQUAL = { cpu: 1, memory: 1 };
const at = (table: Float64Array, columns: number, cpu: number, memory: number) => table[cpu * columns + memory];

test('what fits nothing is wasted, what fits exactly is not', () => {
  // One kind of request: 2 CPUs and 3 of memory.
  const table = wasteTable([{ cpu: 2, memory: 3, weight: 1 }], 9, 13, EQUAL);
  expect(at(table, 13, 8, 12)).toBe(0);
  expect(at(table, 13, 1, 12)).toBeCloseTo(1 / 8 + 12 / 12);
  expect(at(table, 13, 3, 3)).toBeCloseTo(1 / 8);
});

test('a node that suits one of two kinds is expected to get it', () => {
  const requests = [
    { cpu: 3, memory: 1, weight: 0.5 },
    { cpu: 1, memory: 3, weight: 0.5 },
  ];
  const table = wasteTable(requests, 9, 9, EQUAL);
  // Four and four take one of each: nothing is left.
  expect(at(table, 9, 4, 4)).toBeLessThan(0.01);
  // Five of the one and one of the other: three of them serve, two are over.
  expect(at(table, 9, 5, 1)).toBeCloseTo(2 / 8);
});
