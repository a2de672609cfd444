// SPDX-License-Identifier: Apache-2.0
import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import type { z } from 'zod';
import type { Limits } from './limits.ts';
import { type Bound, boundOf } from './schema.ts';

/** The worst requests of a type that somebody could think of, made from its descriptor and its schema. */
export type Bodies = readonly (readonly [name: string, body: Buffer])[];

const varint = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)]);
const tag = (number: number, wireType: number) => Buffer.from(varint(number * 8 + wireType));
const length = (number: number, content: Buffer) =>
  Buffer.concat([tag(number, 2), Buffer.from(varint(content.length)), content]);
/** As many of a piece as `bytes` hold, and at most `count`. */
const fill = (piece: Buffer, bytes: number, count = Number.POSITIVE_INFINITY) => {
  const times = Math.max(0, Math.min(count, Math.floor(bytes / piece.length)));
  return Buffer.alloc(times * piece.length, piece);
};

interface Found {
  readonly path: readonly DescField[];
  readonly field: DescField;
}

/** Every field of a message and of those in it, with the way there. */
function fieldsOf(type: DescMessage, path: readonly DescField[] = []): Found[] {
  if (path.length > 6) return [];
  return type.fields.flatMap((field) => [
    { path, field },
    ...(field.message === undefined || field.fieldKind === 'map' ? [] : fieldsOf(field.message, [...path, field])),
  ]);
}

/** Room for the tags and lengths around what fills a body. */
const ROOM = 128;

export function worstWire(type: DescMessage, limits: Limits): Bodies {
  const bytes = limits.wireBytesMax - ROOM;
  const bodies: [string, Buffer][] = [
    ['unknown numbers', fill(Buffer.concat([tag(1_000, 0), Buffer.from([1])]), bytes)],
    [
      'unknown numbers, as many as pass',
      fill(Buffer.concat([tag(1_000, 0), Buffer.from([1])]), bytes, limits.valuesMax),
    ],
    ['unknown texts', fill(Buffer.concat([tag(1_000, 2), Buffer.from([0])]), bytes)],
    ['groups in groups', fill(tag(1_000, 3), bytes)],
    ['groups side by side', fill(Buffer.concat([tag(1_000, 3), tag(1_000, 4)]), bytes, limits.valuesMax)],
    ['one unknown text', length(1_000, Buffer.alloc(bytes, 'x'))],
    ['a number that does not end', Buffer.alloc(bytes, 0xff)],
    ['zeros', Buffer.alloc(bytes)],
  ];
  for (const { path, field } of fieldsOf(type)) {
    const add = (what: string, content: Buffer) => {
      const body = path.reduceRight((inner, outer) => length(outer.number, inner), content);
      bodies.push([`${[...path, field].map(({ name }) => name).join('.')}: ${what}`, body]);
    };
    const empty = length(field.number, Buffer.alloc(0));
    if (isText(field)) {
      add('one long text', length(field.number, Buffer.alloc(bytes, 'x')));
      add('one long text of what is not shown', length(field.number, Buffer.alloc(bytes, '\u0001')));
      add('what is no UTF-8', length(field.number, Buffer.alloc(bytes, 0xff)));
    }
    if (field.message !== undefined || isText(field)) {
      add('empty ones', fill(empty, bytes));
      add('empty ones, as many as pass', fill(empty, bytes, limits.valuesMax - path.length));
    }
    if (field.fieldKind === 'map') {
      const entries = Array.from({ length: limits.valuesMax >> 1 }, (_, i) =>
        length(field.number, length(1, Buffer.from(i.toString(36)))),
      );
      add('keys, as many as pass', Buffer.concat(entries));
    }
    if (field.fieldKind === 'list' && field.message === undefined && !isText(field)) {
      add('packed', length(field.number, Buffer.alloc(bytes, 1)));
      add('packed, as many as pass', length(field.number, Buffer.alloc(limits.valuesMax - path.length - 1, 1)));
    }
  }
  return bodies;
}

const isText = ({ scalar }: DescField) => scalar === ScalarType.STRING || scalar === ScalarType.BYTES;

export function worstJson(type: DescMessage, limits: Limits): Bodies {
  const bytes = limits.jsonBytesMax - ROOM * 4;
  const many = (piece: string, count: number) =>
    piece.repeat(Math.max(0, Math.min(count, Math.floor(bytes / piece.length))));
  const all = Number.POSITIVE_INFINITY;
  const keys = (count: number) =>
    Array.from({ length: Math.min(count, Math.floor(bytes / 12)) }, (_, i) => `"${i.toString(36)}":1`).join(',');
  const bodies: [string, string][] = [
    ['lists in lists', many('[', all)],
    ['objects in objects', many('{"a":', all)],
    ['unknown keys', `{${keys(all)}}`],
    ['unknown keys, as many as pass', `{${keys(limits.valuesMax - 1)}}`],
    ['one long key', `{"${many('x', all)}":1}`],
    ['one long key of escapes', `{"${many('\\u0001', all)}":1}`],
    ['one long text', `"${many('x', all)}"`],
    ['escapes without end', `"${many('\\', all)}`],
    ['one long number', many('9', all)],
    ['spaces', many(' ', all)],
    ['what is no UTF-8', ''],
  ];
  const [escapes, digits] = [many('\\u0001', all), many('9', all)];
  for (const { path, field } of fieldsOf(type)) {
    const add = (what: string, content: string) => {
      const body = path.reduceRight(
        (inner, outer) => `{"${outer.jsonName}":${outer.fieldKind === 'list' ? `[${inner}]` : inner}}`,
        `{"${field.jsonName}":${content}}`,
      );
      bodies.push([`${[...path, field].map(({ name }) => name).join('.')}: ${what}`, body]);
    };
    // What is no text gets one too: its refusal shows it.
    add('one long text of escapes', `"${escapes}"`);
    if (field.message === undefined && field.fieldKind !== 'list' && field.fieldKind !== 'map') {
      if (field.scalar !== ScalarType.STRING && field.scalar !== ScalarType.BOOL) add('one long number', digits);
      continue;
    }
    add('unknown keys, as many as pass', `{${keys(limits.valuesMax - 2 * path.length - 2)}}`);
    for (const element of ['{}', '""']) {
      add(`${element}, without end`, `[${many(`${element},`, all)}${element}]`);
      const passing = limits.valuesMax - 2 * path.length - 3;
      add(
        `${element}, as many as pass`,
        `[${many(`${element},`, element === '{}' ? passing >> 1 : passing)}${element}]`,
      );
    }
  }
  return [
    ...bodies.map(([name, body]): [string, Buffer] => [name, Buffer.from(body)]),
    ['what is no UTF-8', Buffer.alloc(bytes, 0xff)],
  ];
}

type Def = z.core.$ZodTypeDef & {
  readonly shape?: Readonly<Record<string, z.core.$ZodType>>;
  readonly innerType?: z.core.$ZodType;
  readonly options?: readonly z.core.$ZodType[];
  readonly entries?: Readonly<Record<string, string>>;
  readonly values?: readonly unknown[];
};

/** A message whose lists, maps and texts are as long as the schema lets them be, of texts of this character. */
export function largest(schema: z.core.$ZodType, character: string): unknown {
  const def = schema._zod.def as Def;
  const inner = (one: z.core.$ZodType | undefined) => largest(one as z.core.$ZodType, character);
  switch (def.type) {
    case 'object':
      return Object.fromEntries(
        Object.entries(def.shape ?? {}).map(([name, field]) => [name, largest(field, character)]),
      );
    case 'optional':
      return inner(def.innerType);
    case 'union':
      return inner(def.options?.[0]);
    case 'unknown':
      return largestBounded(boundOf(schema), character);
    case 'enum':
      return Object.values(def.entries ?? {})[0];
    case 'literal':
      return def.values?.[0];
    case 'number':
      return 1;
    case 'bigint':
      return 1n;
    case 'boolean':
      return true;
    case 'date':
      return new Date(0);
    default: {
      const max = (schema._zod.def.checks ?? []).map((check) => (check._zod.def as { maximum?: number }).maximum);
      return character.repeat(max.find((one) => one !== undefined) ?? 36);
    }
  }
}

function largestBounded(bound: Bound | undefined, character: string): unknown {
  switch (bound?.kind) {
    case 'list':
      return Array.from({ length: bound.max }, () => largest(bound.element, character));
    case 'map':
      return Object.fromEntries(
        Array.from({ length: bound.max }, (_, i) => [`k${i}`, largest(bound.value, character)]),
      );
    case 'bytes':
      return new Uint8Array(bound.max);
    case 'later':
      return largest(bound.schema, character);
    case undefined:
      return undefined;
  }
}
