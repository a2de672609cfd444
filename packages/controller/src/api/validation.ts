// SPDX-License-Identifier: Apache-2.0
import { BusbarError, type FieldViolation } from '@busbar/core/errors';
import { hasMisleading, visible, visibleText } from '@busbar/core/visible';
import type { JoinRequest } from '@busbar/proto/gen/busbar/v1/join';
import type { CloudInit } from '@busbar/proto/gen/busbar/v1/vm';
import { z } from 'zod';
import { map, text, word } from '../bounds/schema.ts';

/**
 * Every message of a schema says what would be right; what is wrong is shown by the value itself.
 * A request that fails is answered with all its violations at once.
 */
export function parse<T>(schema: z.ZodType<T>, input: unknown): T {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  throw invalid(result.error.issues.slice(0, VIOLATIONS_MAX).map((issue) => violation(issue, input)));
}

/** Enough to correct a request by; a hostile one has a million. */
const VIOLATIONS_MAX = 20;

function violation(issue: z.core.$ZodIssue, input: unknown): FieldViolation {
  const field = fieldPath(issue.path);
  if (issue.code === 'invalid_key')
    return { field, problem: `has the key ${show(issue.path.at(-1))}`, expected: issue.issues[0]?.message ?? '' };
  const hidden = issue.path.some((part) => typeof part === 'string' && SECRET_FIELDS.has(part));
  const value = valueAt(input, issue.path);
  return { field, problem: `is ${hidden ? HIDDEN : show(value)}`, expected: issue.message };
}

/** Fields that may hold a password: errors travel to terminals, tickets and logs, so their values are never shown. */
const SECRET_FIELDS: ReadonlySet<string> = new Set(['userData', 'networkConfig', 'secret'] satisfies (
  | keyof CloudInit
  | keyof JoinRequest
)[]);
const HIDDEN = 'not shown here';

export function invalid(fields: readonly FieldViolation[]): BusbarError {
  const list = fields.map((f) => `${f.field} ${f.problem}, expected ${f.expected}`).join('; ');
  return new BusbarError({
    kind: 'invalid',
    reason: 'INVALID_REQUEST',
    message: list,
    hint: fields.length === 1 ? `correct ${fields[0]?.field}` : 'correct the fields named',
    fields,
  });
}

export function fieldPath(path: readonly PropertyKey[]): string {
  const text = path.reduce<string>(
    (before, part) =>
      typeof part === 'number' ? `${before}[${part}]` : before === '' ? String(part) : `${before}.${String(part)}`,
    '',
  );
  return cut(visibleText(text.slice(0, FIELD_MAX + 1)), FIELD_MAX);
}

const FIELD_MAX = 160;

/** Shortens without leaving half a character behind. */
export function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 3).replace(/[\ud800-\udbff]$/, '')}...`;
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, part) => (value as Record<PropertyKey, unknown> | undefined)?.[part], input);
}

const SHOWN_MAX = 80;

/** A value as a person reads it in an error, cut so that a hostile one cannot flood a terminal. */
export function show(value: unknown): string {
  if (value === undefined) return 'missing';
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  try {
    // Of a text no more than is shown: to escape a megabyte takes long.
    const text = visible(typeof value === 'string' ? value.slice(0, SHOWN_MAX + 1) : value, (key, item) =>
      SECRET_FIELDS.has(key) ? HIDDEN : typeof item === 'bigint' ? String(item) : item,
    );
    return cut(typeof value === 'bigint' ? String(value) : (text ?? typeof value), SHOWN_MAX);
  } catch {
    return `an unreadable ${typeof value}`;
  }
}

export const count = (min: number, max: number) =>
  z.number().int('a whole number').min(min, `${min} to ${max}`).max(max, `${min} to ${max}`);

/** The values of a proto enum but the one that this version does not know. */
export function oneOf<T extends string>(known: Readonly<Record<string, T>>): z.ZodType<T> {
  const values = Object.entries(known).flatMap(([key, value]) => (key === 'UNRECOGNIZED' ? [] : value));
  const named = values.filter((value) => !value.endsWith('_UNSPECIFIED'));
  return z.enum(values as [T, ...T[]], `one of ${named.join(', ')}`) as unknown as z.ZodType<T>;
}

/** RFC 1035 label: usable as host name in the guest, in file names and in XML without quoting. */
export const NAME_RULE =
  '1 to 63 lower-case letters, digits and hyphens, beginning with a letter, not ending in a hyphen';
/** What a reference takes for an id: a name like that would stand for another resource. */
const UUID_SHAPE = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
export const name = word(63, /^[a-z]([-a-z0-9]*[a-z0-9])?$/, NAME_RULE).refine(
  (value) => !UUID_SHAPE.test(value),
  'a name that does not look like an id (UUID)',
);

export const INNER_NAME_RULE =
  '1 to 20 lower-case letters, digits and hyphens, beginning with a letter, not ending in a hyphen';
/** Name of a disk or NIC inside a VM; 20 characters so that VM and disk names together fit a volume's name. */
export const innerName = word(20, /^[a-z]([-a-z0-9]*[a-z0-9])?$/, INNER_NAME_RULE);

/** A name or an id, as a reference: only bounded, because an unknown one is told as "not found". */
export const reference = text(253, 'a name or an id').min(1, 'a name or an id');

/**
 * Text that is shown as it is. Characters that nobody sees, or that turn around what stands beside them (U+202E), would show
 * another text than is stored.
 */
export function plainText(max: number, rule: string) {
  return text(max, rule).refine((value) => !hasMisleading(value), 'text without control and invisible characters');
}

const LABEL_KEY = /^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$/;
const LABEL_KEY_RULE = "a key of 1 to 63 letters, digits, '-', '_', '.', '/'";
export const labels = map(
  word(63, LABEL_KEY, LABEL_KEY_RULE),
  plainText(255, 'a value of at most 255 characters'),
  64,
  'at most 64 labels',
);

const REQUEST_ID_RULE = "up to 128 letters, digits, '-', '_', '.', ':' (a UUID is best)";
export const requestId = word(128, /^[-A-Za-z0-9_.:]*$/, REQUEST_ID_RULE);

export const time = z.date('a time such as 2026-05-01T12:00:00Z').optional();

export const revision = z.bigint().min(0n, '0 or the revision read before');
