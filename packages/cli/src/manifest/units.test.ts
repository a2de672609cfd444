// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { formatBytes } from '../output/format.ts';
import { parseBytes, parseMs } from './units.ts';

// Hundreds of generated cases on a machine that may be busy: a limit for hanging, not a measure.
vi.setConfig({ testTimeout: 60_000 });

describe('sizes', () => {
  test.each<[unknown, bigint]>([
    [0, 0n],
    [512n, 512n],
    ['512', 512n],
    ['512 B', 512n],
    ['1KiB', 1024n],
    ['512MiB', 536870912n],
    ['10 GiB', 10737418240n],
    ['1.5GiB', 1610612736n],
    ['2TiB', 2199023255552n],
    ['1kB', 1000n],
    ['10MB', 10000000n],
    ['1.25 TB', 1250000000000n],
  ])('%s', (input, bytes) => expect(parseBytes(input)).toEqual({ ok: true, value: bytes }));

  test.each<[unknown, string, string]>([
    ['512mb', '"512mb" has the unknown unit "mb"', 'MiB (1024² bytes) or MB (1000² bytes)'],
    ['10 GiBB', '"10 GiBB" has the unknown unit "GiBB"', 'GiB (1024³ bytes) or GB (1000³ bytes)'],
    ['4Gi', '"4Gi" has the unknown unit "Gi"', 'GiB (1024³ bytes) or GB (1000³ bytes)'],
    ['-1GiB', '"-1GiB" is negative', 'zero or more bytes'],
    [-5, '-5 is negative', 'zero or more bytes'],
    [1.5, '1.5 is not a whole number of bytes', 'a whole number of bytes'],
    ['0.1GiB', '"0.1GiB" is not a whole number of bytes', 'a whole number of bytes'],
    ['9999999TiB', '"9999999TiB" is too large', 'at most 9223372036854775807 bytes'],
  ])('%s is refused', (input, problem, expected) =>
    expect(parseBytes(input)).toEqual({ ok: false, error: { problem, expected } }),
  );

  test.each([['much'], ['1e9'], ['1 000'], ['0x10'], [''], [true], [null], [[]], ['1GiB; rm -rf /'], ['٣GiB']])(
    '%s is no size',
    (input) => expect(parseBytes(input).ok).toBe(false),
  );

  test('what is shown can be written', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 1023n }), fc.constantFrom(0n, 10n, 20n, 30n, 40n), (count, shift) => {
        const bytes = count << shift;
        expect(parseBytes(formatBytes(bytes))).toEqual({ ok: true, value: bytes });
      }),
    );
  });

  test('anything gives a value or a refusal, never an exception', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.anything(), fc.string(), fc.stringMatching(/^-?[0-9.]{1,9} ?[KMGTkmgtiBb]{0,4}$/)),
        (input) => {
          const parsed = parseBytes(input);
          if (parsed.ok) expect(parsed.value >= 0n && parsed.value < 2n ** 63n).toBe(true);
          else expect(parsed.error.expected).not.toBe('');
          parseMs(input);
        },
      ),
    );
  });
});

describe('durations', () => {
  test.each<[unknown, number]>([
    [1500n, 1500],
    ['250ms', 250],
    ['30s', 30000],
    ['2min', 120000],
    ['1.5h', 5400000],
  ])('%s', (input, value) => expect(parseMs(input)).toEqual({ ok: true, value }));

  test.each<[string, string]>([
    ['2m', 'min for minutes, ms for milliseconds'],
    ['30sec', 's for seconds'],
    ['1000h', 'at most 2147483647 milliseconds'],
  ])('%s is refused', (input, expected) => expect(parseMs(input)).toMatchObject({ ok: false, error: { expected } }));
});
