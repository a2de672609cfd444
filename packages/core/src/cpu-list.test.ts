// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatCpuList, parseCpuList, realCpu } from './cpu-list.ts';

test.each([
  ['', []],
  ['0', [0]],
  ['0-3,8,10-11', [0, 1, 2, 3, 8, 10, 11]],
  ['3,1,1-2\n', [1, 2, 3]],
  ['5-3,x,-1,1-,0x1', []],
])('%j is %j', (text, cpus) => {
  expect(parseCpuList(text)).toEqual(cpus);
});

test('what is written is read back, and shortest', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(300)), (cpus) => {
      const text = formatCpuList(cpus);
      expect(parseCpuList(text)).toEqual(cpus.toSorted((a, b) => a - b));
      expect(formatCpuList(parseCpuList(text))).toBe(text);
    }),
  );
});

test('a text of somebody else does not become a million numbers', () => {
  expect(parseCpuList('0-999999999').length).toBe(65_536);
});

test('pretended CPUs stand for those that exist, in turn', () => {
  expect([0, 1, 2, 3, 4].map((cpu) => realCpu(cpu, [2, 5]))).toEqual([2, 5, 2, 5, 2]);
});
