// SPDX-License-Identifier: Apache-2.0
/**
 * Sizes and durations as people write them. Pure and exact: no floating point, because 0.1 GiB is not a whole
 * number of bytes and a size that is silently rounded is found months later.
 */
import { ok, type Result, refuse } from '@busbar/core/result';

export interface UnitProblem {
  readonly problem: string;
  readonly expected: string;
}

const BINARY = ['KiB', 'MiB', 'GiB', 'TiB'] as const;
const DECIMAL = ['kB', 'MB', 'GB', 'TB'] as const;

const SIZE_UNITS: ReadonlyMap<string, bigint> = new Map<string, bigint>([
  ['B', 1n],
  ...BINARY.map((unit, index) => [unit, 1024n ** BigInt(index + 1)] as const),
  ...DECIMAL.map((unit, index) => [unit, 1000n ** BigInt(index + 1)] as const),
]);

const DURATION_UNITS: ReadonlyMap<string, bigint> = new Map([
  ['ms', 1n],
  ['s', 1000n],
  ['min', 60_000n],
  ['h', 3_600_000n],
]);

const SIZE_EXPECTED =
  'a number of bytes, or a number with KiB, MiB, GiB, TiB (powers of 1024) or kB, MB, GB, TB (powers of 1000)';
const DURATION_EXPECTED = 'a number of milliseconds, or a number with ms, s, min or h';
/** The API's sizes are int64, its durations int32. */
const MAX_BYTES = 2n ** 63n - 1n;
const MAX_MS = 2n ** 31n - 1n;

export function parseBytes(input: unknown): Result<bigint, UnitProblem> {
  return parseQuantity(input, SIZE_UNITS, SIZE_EXPECTED, 'bytes', MAX_BYTES, similarSize);
}

export function parseMs(input: unknown): Result<number, UnitProblem> {
  const parsed = parseQuantity(input, DURATION_UNITS, DURATION_EXPECTED, 'milliseconds', MAX_MS, similarDuration);
  return parsed.ok ? ok(Number(parsed.value)) : parsed;
}

function parseQuantity(
  input: unknown,
  units: ReadonlyMap<string, bigint>,
  expected: string,
  base: string,
  max: bigint,
  similar: (unit: string) => string | undefined,
): Result<bigint, UnitProblem> {
  const shown = show(input);
  const wrong = (problem: string, better = expected) => refuse({ problem: `${shown} ${problem}`, expected: better });
  if (typeof input !== 'string' && typeof input !== 'number' && typeof input !== 'bigint') {
    return wrong(`is no number of ${base}`);
  }
  const text = typeof input === 'string' ? input.trim() : String(input);
  const match = /^([+-]?)([0-9]{1,30})(?:\.([0-9]{1,30}))?[ ]?([A-Za-zµ]*)$/.exec(text);
  if (match === null) return wrong(`is no number of ${base}`);
  const [, sign = '', whole = '', fraction = '', unit = ''] = match;
  const factor = unit === '' ? 1n : units.get(unit);
  if (factor === undefined) {
    const better = similar(unit);
    return wrong(`has the unknown unit ${JSON.stringify(unit)}`, better ?? expected);
  }
  if (sign === '-') return wrong('is negative', `zero or more ${base}`);
  const scale = 10n ** BigInt(fraction.length);
  const scaled = BigInt(whole + fraction) * factor;
  if (scaled % scale !== 0n) return wrong(`is not a whole number of ${base}`, `a whole number of ${base}`);
  const value = scaled / scale;
  if (value > max) return wrong('is too large', `at most ${max} ${base}`);
  return ok(value);
}

function similarSize(unit: string): string | undefined {
  const letter = unit.charAt(0).toLowerCase();
  const index = ['k', 'm', 'g', 't'].indexOf(letter);
  if (unit.toLowerCase() === 'b') return 'B for bytes';
  if (index < 0) return undefined;
  const [binary, decimal] = [BINARY[index], DECIMAL[index]];
  return `${binary} (1024${power(index)} bytes) or ${decimal} (1000${power(index)} bytes)`;
}

function power(index: number): string {
  return ['', '²', '³', '⁴'][index] ?? '';
}

function similarDuration(unit: string): string | undefined {
  const lower = unit.toLowerCase();
  if (lower === 'm') return 'min for minutes, ms for milliseconds';
  if (lower.startsWith('ms') || lower.startsWith('milli')) return 'ms for milliseconds';
  if (lower.startsWith('s')) return 's for seconds';
  if (lower.startsWith('mi')) return 'min for minutes';
  if (lower.startsWith('h')) return 'h for hours';
  return undefined;
}

function show(input: unknown): string {
  if (typeof input === 'string') return JSON.stringify(input.length > 40 ? `${input.slice(0, 40)}…` : input);
  if (typeof input === 'number' || typeof input === 'bigint' || typeof input === 'boolean') return String(input);
  if (input === null || input === undefined) return 'nothing';
  return Array.isArray(input) ? 'a list' : 'this value';
}
