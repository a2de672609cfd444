// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { visible, visibleText } from './visible.ts';

it('shows what JSON writes, and what a terminal would obey as an escape', () => {
  expect(visible({ a: 'ä\n' })).toBe('{"a":"ä\\n"}');
  expect(visible('\u007f\u009b2J')).toBe('"\\u007f\\u009b2J"');
  expect(visibleText('\u001b[2Jcluster"')).toBe('\\u001b[2Jcluster\\"');
  expect(visible(undefined)).toBeUndefined();
});

it('holds no control character, and is still JSON of the same value', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      expect(visible(text)).not.toMatch(/\p{Cc}/u);
      expect(JSON.parse(visible(text) ?? '')).toBe(text);
    }),
  );
});
