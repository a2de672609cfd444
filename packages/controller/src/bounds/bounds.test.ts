// SPDX-License-Identifier: Apache-2.0
import {
  create,
  type DescField,
  type DescMessage,
  type Message,
  ScalarType,
  toBinary,
  toJsonString,
} from '@bufbuild/protobuf';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import { AgentServiceDefinition } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { UpdateVmRequest } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { AnyMethod } from '../api/pipeline.ts';
import { requestTypeName } from '../api/request-bounds.ts';
import { parse } from '../api/validation.ts';
import { Rig } from '../testing/rig.ts';
import { limitsOf } from './limits.ts';
import { openRegistry } from './registry.ts';
import { scanJson } from './scan-json.ts';
import { scanWire, wireShapes } from './scan-wire.ts';
import { bytes, checkedLater, list, map, text, word } from './schema.ts';
import { largest } from './worst.fixture.ts';

const registry = openRegistry();
const shapeOf = wireShapes();
const rpcs = new Rig().services.flatMap(({ definition, methods }) =>
  Object.entries(definition.methods).map(([key, rpc]) => ({
    name: `${definition.name}/${rpc.name}`,
    rpc,
    method: methods[key] as AnyMethod,
    type: registry(requestTypeName(definition.fullName, rpc.name)),
  })),
);
const types = [...rpcs.map(({ type }) => type), ...agentTypes()];

function agentTypes(): DescMessage[] {
  const { fullName, methods } = AgentServiceDefinition;
  return Object.values(methods).map((rpc) => registry(requestTypeName(fullName, rpc.name)));
}

const AMPLE = { valuesMax: 1e9, depthMax: 100 };

/** Messages of a type, as the library has them. */
function messages(type: DescMessage, depth = 0): fc.Arbitrary<Message> {
  const fields = type.fields
    .filter(({ message }) => message === undefined || depth < 4)
    .map((field) => fc.option(fc.tuple(fc.constant(field), valuesOf(field, depth)), { nil: null }));
  return fc.tuple(...fields).map((given) => {
    const init: Record<string, unknown> = {};
    for (const each of given) {
      if (each === null) continue;
      const [field, value] = each;
      if (field.oneof === undefined) init[field.localName] = value;
      else init[field.oneof.localName] = { case: field.localName, value };
    }
    return create(type, init as never);
  });
}

function valuesOf(field: DescField, depth: number): fc.Arbitrary<unknown> {
  const one =
    field.message !== undefined
      ? field.message.typeName === 'google.protobuf.Timestamp'
        ? fc
            .record({ seconds: fc.bigInt({ min: 0n, max: 253402300799n }), nanos: fc.nat(999_999_999) })
            .map((init) => create(field.message as DescMessage, init as never))
        : messages(field.message, depth + 1)
      : field.enum !== undefined
        ? fc.constantFrom(...field.enum.values.map(({ number }) => number))
        : scalar(field.scalar as ScalarType);
  if (field.fieldKind === 'list') return fc.array(one, { maxLength: 5 });
  if (field.fieldKind === 'map') return fc.dictionary(fc.string({ maxLength: 8 }), one, { maxKeys: 4 });
  return one;
}

function scalar(type: ScalarType): fc.Arbitrary<unknown> {
  switch (type) {
    case ScalarType.STRING:
      return fc.string({ unit: 'grapheme', maxLength: 12 });
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 12 });
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.INT32:
      return fc.integer();
    case ScalarType.INT64:
      return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
    default:
      throw new Error(`no values of ${ScalarType[type]} yet`);
  }
}

/** Everything that a parsed JSON value consists of, and how deep it goes. */
function countJson(value: unknown): { values: number; depth: number } {
  if (typeof value !== 'object' || value === null) return { values: 0, depth: 0 };
  const inner = Object.values(value).map(countJson);
  return {
    values: Math.max(1, inner.length) + inner.reduce((sum, each) => sum + each.values, 0),
    depth: 1 + Math.max(0, ...inner.map(({ depth }) => depth)),
  };
}

describe('the scan of the wire', () => {
  it('lets every message of every request through', () => {
    for (const type of types) {
      const shape = shapeOf(type);
      fc.assert(
        fc.property(messages(type), (message) => {
          expect(scanWire(toBinary(type, message), shape, AMPLE)).toBeNull();
        }),
        { numRuns: numRuns(30) },
      );
    }
  });

  it('lets through what a newer version has beside that', () => {
    const type = registry('busbar.v1.UpdateVmRequest');
    fc.assert(
      fc.property(messages(type), (message) => {
        expect(scanWire(toBinary(type, message), shapeOf(registry('busbar.v1.GetClusterRequest')), AMPLE)).toBeNull();
      }),
      { numRuns: numRuns(100) },
    );
  });

  it('never throws, and what it lets through can be decoded', () => {
    const type = registry('busbar.v1.UpdateVmRequest');
    const sound = messages(type).map((message) => toBinary(type, message));
    const broken = fc
      .tuple(sound, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }))
      .map(([all, changes]) => {
        for (const [at, byte] of changes) if (all.length > 0) all[at % all.length] = byte;
        return all;
      });
    const outcomes = new Set<boolean>();
    fc.assert(
      fc.property(fc.oneof(broken, fc.uint8Array({ maxLength: 60 })), (input) => {
        const taken = scanWire(input, shapeOf(type), AMPLE) === null;
        outcomes.add(taken);
        if (taken) UpdateVmRequest.decode(input);
      }),
      { numRuns: numRuns(2_000) },
    );
    expect(outcomes.size).toBe(2);
  });

  const shape = shapeOf(registry('busbar.v1.UpdateHostRequest'));
  const scan = (input: readonly number[], limits = { valuesMax: 10, depthMax: 4 }) =>
    scanWire(Uint8Array.from(input), shape, limits)?.problem;
  const many = 'has more than 10 fields and elements';

  it.each<[string, number[]]>([
    ['fields', Array.from({ length: 11 }, () => [0x0a, 0]).flat()],
    ['unknown fields', Array.from({ length: 11 }, () => [0x78, 0]).flat()],
    ['groups', Array.from({ length: 11 }, () => [0x7b, 0x7c]).flat()],
    ['entries of a map', Array.from({ length: 4 }, () => [0x12, 4, 0x0a, 0, 0x12, 0]).flat()],
    // spec (3) { reserved_cpus (2): packed }
    ['packed numbers', [0x1a, 12, 0x12, 10, ...Array.from({ length: 10 }, () => 1)]],
    ['elements of messages', [0x1a, 22, ...Array.from({ length: 11 }, () => [0x2a, 0]).flat()]],
  ])('counts %s', (_what, input) => {
    expect(scan(input)).toBe(many);
    expect(scan(input, { valuesMax: 24, depthMax: 4 })).toBeUndefined();
  });

  it('bounds the depth of groups, which it follows', () => {
    expect(scan([0x7b, 0x7b, 0x7b, 0x7b, 0x7c, 0x7c, 0x7c, 0x7c])).toBe('is nested more than 4 levels deep');
    expect(
      scan(
        Array.from({ length: 100_000 }, () => 0x7b),
        { valuesMax: 1e6, depthMax: 20 },
      ),
    ).toMatch(/20 levels/);
  });

  it.each<[string, number[]]>([
    ['a tag without a value', [0x08]],
    ['a length beyond the end', [0x0a, 5, 0x61]],
    ['a length beyond its message', [0x1a, 2, 0x22, 7]],
    ['field 0', [0x00, 0x01]],
    ['wire type 6', [0x0e, 0]],
    ['a group that does not end', [0x7b]],
    ['the end of a group that did not begin', [0x7c]],
    ['the end of another group', [0x7b, 0x74]],
    ['a number of eleven bytes', [0x28, ...Array.from({ length: 10 }, () => 0x80), 0]],
    ['half a packed number', [0x1a, 3, 0x12, 1, 0x80]],
  ])('refuses %s', (_what, input) => {
    expect(scan(input)).toBe('is no protobuf message');
  });

  it('refuses a long text that is no UTF-8, as field and in a map', () => {
    const long = [...Array.from({ length: 1_024 }, () => 0x61), 0xff];
    const field = (number: number, content: number[]) => [
      ...[number * 8 + 2, (content.length & 127) | 128, content.length >> 7],
      ...content,
    ];
    for (const input of [field(1, long), field(2, field(2, long)), field(2, field(1, long))]) {
      expect(scan(input)).toBe('is no protobuf message');
      expect(scan(input.map((byte) => (byte === 0xff ? 0x61 : byte)))).toBeUndefined();
    }
  });

  it('finds a key that an object would drop, wherever it is', () => {
    const key = [...Buffer.from('__proto__')];
    const entry = (content: number[]) => [0x12, content.length, ...content];
    expect(scan(entry([0x0a, 9, ...key, 0x12, 1, 0x78]))).toBe('has the key "__proto__"');
    expect(scan(entry([0x12, 1, 0x78, 0x0a, 9, ...key]))).toBe('has the key "__proto__"');
    expect(scan(entry([0x0a, 1, 0x61, 0x12, 9, ...key]))).toBeUndefined();
  });
});

describe('the scan of JSON', () => {
  const scan = (body: string, valuesMax: number, depthMax = 100) =>
    scanJson(Buffer.from(body), { valuesMax, depthMax })?.problem ?? null;

  it('lets every message of every request through', () => {
    for (const type of types) {
      fc.assert(
        fc.property(messages(type), (message) => {
          expect(scan(toJsonString(type, message), 1e9)).toBeNull();
        }),
        { numRuns: numRuns(30) },
      );
    }
  });

  it('counts what is there, neither more nor less, whatever is in texts', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 6 }), fc.nat(3), (body, indent) => {
        const value: unknown = JSON.parse(body);
        const written = JSON.stringify(value, null, indent);
        const { values, depth } = countJson(value);
        expect(scan(written, values, depth)).toBeNull();
        if (values > 0) expect(scan(written, values - 1)).toMatch(/fields and elements/);
        if (depth > 0) expect(scan(written, values, depth - 1)).toMatch(/levels deep/);
      }),
      { numRuns: numRuns(500) },
    );
  });

  it('never throws', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (body) => void scanJson(body, { valuesMax: 9, depthMax: 3 })),
    );
  });
});

describe('the limits of a request', () => {
  it.each(rpcs)('$name: let the largest legal one through, on both transports', ({ rpc, method, type }) => {
    const limits = limitsOf(method.schema, method.bytesMax);
    const message = largest(method.schema, 'a');
    const wire = rpc.requestType.encode(message as never).finish();
    const toJson = rpc.requestType as unknown as { toJSON(value: unknown): unknown };
    const json = Buffer.from(JSON.stringify(toJson.toJSON(message), null, 2));
    expect(wire.length).toBeLessThanOrEqual(limits.wireBytesMax);
    expect(json.length).toBeLessThanOrEqual(limits.jsonBytesMax);
    expect(scanWire(wire, shapeOf(type), { ...limits, valuesMax: limits.valuesMax - 1_000 })).toBeNull();
    expect(scanJson(json, { ...limits, valuesMax: limits.valuesMax - 1_000 + 1 })).toBeNull();
    expect(limits.wireBytesMax).toBeLessThan(1.1 * 1024 ** 2);
    expect(limits.jsonBytesMax).toBeLessThan(1.5 * 1024 ** 2);
  });

  it('of Join are 64 KiB, six certificate requests of RSA keys', () => {
    const { method } = rpcs.find(({ name }) => name === 'JoinService/Join') ?? { method: null };
    expect(limitsOf((method as AnyMethod).schema, (method as AnyMethod).bytesMax)).toMatchObject({
      wireBytesMax: 65_536,
      jsonBytesMax: 65_536,
    });
  });

  it.each(rpcs)('$name: every field has a schema', ({ method, type }) => {
    expect(unbounded(type, largest(method.schema, 'a'), '')).toEqual([]);
  });

  it.each<[string, z.ZodType]>([
    ['a text', z.string()],
    ['a text with a pattern alone', z.string().regex(/^a*$/)],
    ['a list', z.array(z.boolean())],
    ['a list with a maximum that comes last', z.array(z.boolean()).max(3)],
    ['a map', z.record(z.string().max(3), z.boolean())],
    ['bytes', z.instanceof(Uint8Array)],
    ['anything', z.unknown()],
    ['a list in a list', list(z.array(z.boolean()), 0, 3, '')],
  ])('cannot be told of %s', (_what, schema) => {
    expect(() => limitsOf(z.object({ part: z.object({ field: schema }).optional() }))).toThrow(/part\.field.*bound/);
  });

  it('are the same for what is derived from a bounded schema', () => {
    const plain = list(text(9, ''), 0, 3, '');
    expect(limitsOf(z.object({ a: plain.refine(() => true).optional() }))).toEqual(limitsOf(z.object({ a: plain })));
    const later = checkedLater(z.object({ a: bytes(1e6, '') }));
    expect(limitsOf(z.object({ a: later })).wireBytesMax).toBeGreaterThan(1e6);
  });
});

/** Fields of a message that a value made from the schema does not have: nobody would bound them. */
function unbounded(type: DescMessage, value: unknown, path: string): string[] {
  if (type.typeName === 'google.protobuf.Timestamp') return [];
  const has = (value ?? {}) as Record<string, unknown>;
  return type.fields.flatMap((field) => {
    if (field.oneof !== undefined) return field.oneof.localName in has ? [] : [`${path}${field.oneof.localName}`];
    if (!(field.localName in has)) return [`${path}${field.localName}`];
    if (field.message === undefined || field.fieldKind === 'map') return [];
    const inner = has[field.localName];
    return unbounded(field.message, Array.isArray(inner) ? inner[0] : inner, `${path}${field.localName}.`);
  });
}

describe('a list and a map', () => {
  let looked = 0;
  const element = z.string().refine((value) => {
    looked++;
    return value === 'good';
  }, 'good');
  const fieldsOf = (schema: z.ZodType, value: unknown) => {
    looked = 0;
    try {
      parse(z.object({ it: schema }), { it: value });
    } catch (error) {
      return (error as { fields: { field: string; expected: string }[] }).fields.map(
        (one) => `${one.field} ${one.expected}`,
      );
    }
    return [];
  };
  const bad = (length: number) => Array.from({ length }, () => 'bad');
  const badMap = (keys: number) => Object.fromEntries(Array.from({ length: keys }, (_, i) => [`k${i}`, 'bad']));

  it('are refused by their length before an element is looked at', () => {
    const few = list(element, 1, 100, '1 to 100');
    expect([fieldsOf(few, bad(101)), looked]).toEqual([['it 1 to 100'], 0]);
    expect([fieldsOf(few, []), looked]).toEqual([['it 1 to 100'], 0]);
    const fewKeys = map(word(9, /^k/, 'a k'), element, 100, 'at most 100');
    expect([fieldsOf(fewKeys, badMap(101)), looked]).toEqual([['it at most 100'], 0]);
  });

  it('are looked at until they are wrong enough', () => {
    expect(fieldsOf(list(element, 1, 100, ''), ['good', 'bad', 'good', 'bad'])).toEqual(['it[1] good', 'it[3] good']);
    expect(fieldsOf(list(element, 1, 100, ''), bad(100))).toHaveLength(20);
    expect(looked).toBe(20);
    expect(fieldsOf(map(word(9, /^k/, 'a k'), element, 100, ''), { k1: 'good', x: 'good', k2: 'bad' })).toEqual([
      'it.x a k',
      'it.k2 good',
    ]);
    expect(fieldsOf(map(word(9, /^k/, ''), element, 100, ''), badMap(100))).toHaveLength(20);
    expect(looked).toBe(20);
  });

  it('that are too long spare the rules above them', () => {
    let asked = 0;
    const outer = z.object({ few: list(element, 0, 3, 'three') }).superRefine(() => void asked++);
    fieldsOf(outer, { few: bad(4) });
    expect(asked).toBe(0);
  });

  it('that hold a text which is too long do not match it', () => {
    let matched = 0;
    const short = text(3, 'short').refine(() => ++matched > 0);
    expect([fieldsOf(short, 'long'), matched]).toEqual([['it short'], 0]);
  });
});
