// SPDX-License-Identifier: Apache-2.0
import type { z } from 'zod';
import { type Bound, boundOf, isOfAscii } from './schema.ts';

/** How much one request message may be, before a byte of it is parsed. */
export interface Limits {
  /** Length on the wire, over gRPC. */
  readonly wireBytesMax: number;
  /** Length of the body, over HTTPS. */
  readonly jsonBytesMax: number;
  /** Fields, elements, keys: everything that parsing makes something of. */
  readonly valuesMax: number;
  /** Messages, lists and maps inside each other. */
  readonly depthMax: number;
}

/** What a schema lets through, at most. */
interface Size {
  readonly wire: number;
  readonly json: number;
  readonly values: number;
  readonly depth: number;
}

/**
 * A request that is too large by a little is told what is wrong with it by the schema, in words better than "too large". 64 KiB
 * and a thousand values of the worst kind cost some 5 ms (worst-bodies.test.ts measures it).
 */
export const FLOOR_BYTES = 64 * 1024;
export const SPARE_VALUES = 1_000;
/** JSON that is nested deeper than any message is refused by the check of its fields (request-json.ts), by its path. */
export const SPARE_DEPTH = 8;

/** A tag and a length, or a tag and a number of 64 bits. */
const WIRE_FIELD = 12;
/** Colon, comma, quotes, a line break and eight levels of indentation. */
const JSON_FIELD = 24;
/** UTF-8 of a UTF-16 unit, and \uXXXX. */
const WIRE_PER_UNIT = 3;
const JSON_PER_UNIT = 6;
/** "-9223372036854775808" as text; a time in RFC 3339 with nanoseconds and quotes. */
const NUMBER: Size = { wire: 10, json: 22, values: 0, depth: 0 };
const TIME: Size = { wire: 22, json: 38, values: 2, depth: 1 };
const BOOLEAN: Size = { wire: 1, json: 5, values: 0, depth: 0 };

/** The limits of a request message. `bytesMax`: where the sum of all that is allowed says nothing about what is needed. */
export function limitsOf(schema: z.core.$ZodType, bytesMax?: number): Limits {
  const size = sizeOf(schema, '');
  return {
    wireBytesMax: bytesMax ?? Math.max(FLOOR_BYTES, Math.ceil(size.wire)),
    jsonBytesMax: bytesMax ?? Math.max(FLOOR_BYTES, Math.ceil(size.json)),
    valuesMax: size.values + SPARE_VALUES,
    depthMax: size.depth + SPARE_DEPTH,
  };
}

const ascii = (units: number): Size => ({ wire: units, json: units, values: 0, depth: 0 });

type Def = z.core.$ZodTypeDef & {
  readonly shape?: Readonly<Record<string, z.core.$ZodType>>;
  readonly innerType?: z.core.$ZodType;
  readonly options?: readonly z.core.$ZodType[];
  readonly entries?: Readonly<Record<string, string | number>>;
  readonly values?: readonly unknown[];
  readonly format?: string;
};

/** Throws at a schema without a bound: a controller with such a request does not start. */
function sizeOf(schema: z.core.$ZodType, path: string): Size {
  const def = schema._zod.def as Def;
  switch (def.type) {
    case 'object':
      return message(Object.entries(def.shape ?? {}), path);
    case 'optional':
      return sizeOf(def.innerType as z.core.$ZodType, path);
    case 'union':
      return (def.options ?? []).map((option) => sizeOf(option, path)).reduce(largest);
    case 'string':
      return text(schema, def, path);
    case 'enum':
      return ascii(Math.max(...Object.values(def.entries ?? {}).map((value) => String(value).length)));
    case 'literal':
      return ascii(0);
    case 'number':
    case 'bigint':
      return NUMBER;
    case 'boolean':
      return BOOLEAN;
    case 'date':
      return TIME;
    default: {
      const bound = boundOf(schema);
      if (bound !== undefined) return bounded(bound, path);
      throw new Error(`${path}: a schema of type ${def.type} has no bound; those of bounds/schema.ts have one`);
    }
  }
}

function bounded(bound: Bound, path: string): Size {
  switch (bound.kind) {
    case 'list':
      return many(bound.max, sizeOf(bound.element, `${path}[]`), 1);
    case 'map': {
      const [key, value] = [sizeOf(bound.key, `${path}{}`), sizeOf(bound.value, `${path}{}`)];
      // On the wire a message of two fields.
      const entry = {
        wire: key.wire + value.wire + 2 * WIRE_FIELD,
        json: key.json + value.json,
        values: value.values + 2,
        depth: value.depth,
      };
      return many(bound.max, entry, 1);
    }
    case 'bytes':
      return { wire: bound.max, json: Math.ceil(bound.max / 3) * 4, values: 0, depth: 0 };
    case 'later':
      return sizeOf(bound.schema, path);
  }
}

function message(fields: readonly (readonly [string, z.core.$ZodType])[], path: string): Size {
  const sizes = fields.map(([key, schema]) => {
    const size = sizeOf(schema, path === '' ? key : `${path}.${key}`);
    return { ...size, wire: size.wire + WIRE_FIELD, json: size.json + key.length + JSON_FIELD };
  });
  return {
    wire: sum(sizes.map(({ wire }) => wire)),
    json: sum(sizes.map(({ json }) => json)),
    values: sum(sizes.map(({ values }) => values + 1)),
    depth: 1 + Math.max(0, ...sizes.map(({ depth }) => depth)),
  };
}

function many(count: number, each: Size, depth: number): Size {
  return {
    wire: count * (each.wire + WIRE_FIELD),
    json: count * (each.json + JSON_FIELD),
    values: count * (each.values + 1),
    depth: each.depth + depth,
  };
}

function text(schema: z.core.$ZodType, def: Def, path: string): Size {
  if (def.format === 'uuid') return ascii(36);
  const checks = (schema._zod.def.checks ?? []).map(
    (check) => check._zod.def as { readonly maximum?: number; readonly pattern?: RegExp },
  );
  const units = checks.find(({ maximum }) => maximum !== undefined)?.maximum;
  if (units === undefined) throw new Error(`${path}: a text without a bound; those of bounds/schema.ts have one`);
  if (checks.some(({ pattern }) => pattern !== undefined && isOfAscii(pattern))) return ascii(units);
  return { wire: units * WIRE_PER_UNIT, json: units * JSON_PER_UNIT, values: 0, depth: 0 };
}

const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0);
const largest = (a: Size, b: Size): Size => ({
  wire: Math.max(a.wire, b.wire),
  json: Math.max(a.json, b.json),
  values: Math.max(a.values, b.values),
  depth: Math.max(a.depth, b.depth),
});
