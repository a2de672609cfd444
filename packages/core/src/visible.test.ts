// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { hasMisleading, replaceMisleading, visible, visibleText } from './visible.ts';

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

it.each(['\u202e', '\u2066', '\u200f', '\u061c', '\u200b', '\ufeff', '\u2028', '\u{e0041}', '\u009b', '\u001b'])(
  'shows %j, and takes it for what misleads',
  (character) => {
    expect(hasMisleading(`a${character}b`)).toBe(true);
    expect(visible(`a${character}b`)).toMatch(/^"a(\\u[0-9a-f]{4})+b"$/);
    expect(JSON.parse(visible(`a${character}b`) ?? '')).toBe(`a${character}b`);
    expect(replaceMisleading(`a${character}b`, '?')).toBe('a?b');
  },
);

it.each(['Nordré', '北', '😀', 'שלום', 'e\u0301'])('leaves %j alone', (text) => {
  expect([hasMisleading(text), visible(text), replaceMisleading(text, '?')]).toEqual([false, `"${text}"`, text]);
});
