// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { parseLabels } from '../cli/options.ts';
import { oneLine } from './format.ts';

it('shows what would turn a line around or hide in it', () => {
  expect(oneLine('db\u202eevil\u2066 x\u200f\u200b')).toBe('db\ufffdevil\ufffd x\ufffd\ufffd');
  expect(oneLine('\u001b[2J\u009b2J\u007f')).toBe('\ufffd[2J\ufffd2J\ufffd');
  expect(oneLine(' Nordré\n北 😀 ')).toBe('Nordré 北 😀');
});

it('takes no label that would be dropped without a word', () => {
  expect(parseLabels(['a=b', 'constructor=c'])).toEqual({ a: 'b', constructor: 'c' });
  expect(() => parseLabels(['__proto__=x'])).toThrow('__proto__');
});
