// SPDX-License-Identifier: Apache-2.0
import { isUtf8 } from 'node:buffer';
import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import type { Limits } from './limits.ts';
import { type Excess, prototypeKey, tooDeep, tooMany } from './scan-json.ts';

/** What a scan of the wire format has to know of a message: which fields hold others. */
export interface WireShape {
  /** By field number; what is not here is one value, whatever it is. */
  readonly fields: ReadonlyMap<number, WireField>;
}

type WireField =
  | { readonly kind: 'message'; readonly shape: WireShape }
  | { readonly kind: 'text' }
  /** The key of a map's entry. */
  | { readonly kind: 'key'; readonly map: string }
  | { readonly kind: 'packed'; readonly width: 4 | 8 | 'varint' };

const EMPTY: WireShape = { fields: new Map() };

/** Shapes of messages, each made once. */
export function wireShapes(): (type: DescMessage) => WireShape {
  const made = new Map<string, WireShape>();
  const shapeOf = (type: DescMessage): WireShape => {
    const known = made.get(type.typeName);
    if (known !== undefined) return known;
    const fields = new Map<number, WireField>();
    const shape = { fields };
    // Before its fields: a message may hold itself.
    made.set(type.typeName, shape);
    for (const field of type.fields) {
      const found = fieldShape(field, shapeOf);
      if (found !== null) fields.set(field.number, found);
    }
    return shape;
  };
  return shapeOf;
}

function fieldShape(field: DescField, shapeOf: (type: DescMessage) => WireShape): WireField | null {
  if (field.fieldKind === 'map') {
    const entry = new Map<number, WireField>([[1, { kind: 'key', map: field.jsonName }]]);
    if (field.message !== undefined) entry.set(2, { kind: 'message', shape: shapeOf(field.message) });
    if (field.scalar === ScalarType.STRING) entry.set(2, { kind: 'text' });
    return { kind: 'message', shape: { fields: entry } };
  }
  if (field.message !== undefined) return { kind: 'message', shape: shapeOf(field.message) };
  if (field.scalar === ScalarType.STRING) return { kind: 'text' };
  if (field.fieldKind === 'list') return packed(field.scalar ?? ScalarType.INT32);
  return null;
}

/** Lists of numbers may come in one piece, whether the schema says so or not. */
function packed(type: ScalarType): WireField | null {
  switch (type) {
    case ScalarType.BYTES:
      return null;
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return { kind: 'packed', width: 8 };
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return { kind: 'packed', width: 4 };
    default:
      return { kind: 'packed', width: 'varint' };
  }
}

const VARINT = 0;
const I64 = 1;
const LENGTH = 2;
const GROUP = 3;
const END_GROUP = 4;
const I32 = 5;
/** What is no UTF-8 takes ten times as long to decode. Of short texts nobody notices, and asking would cost more. */
const LONG_TEXT_BYTES = 1_024;
/** 64 bits in groups of seven. */
const VARINT_BYTES_MAX = 10;

const PROTOTYPE_KEY = Buffer.from('__proto__');

const MALFORMED: Excess = {
  field: 'the request',
  problem: 'is no protobuf message',
  expected: 'one of the type that the method takes',
};

/**
 * Counts what decoding would make of a message, without making anything: fields, elements of packed lists, entries of maps,
 * unknown fields, and how deep they are. What it lets through is well-formed, so that decoding finds the same.
 */
export function scanWire(
  bytes: Uint8Array,
  shape: WireShape,
  limits: Pick<Limits, 'valuesMax' | 'depthMax'>,
): Excess | null {
  return new WireScan(bytes, limits).message(shape, bytes.length, 1);
}

class WireScan {
  readonly #bytes: Uint8Array;
  readonly #valuesMax: number;
  readonly #depthMax: number;
  #at = 0;
  #values = 0;

  constructor(bytes: Uint8Array, limits: Pick<Limits, 'valuesMax' | 'depthMax'>) {
    this.#bytes = bytes;
    this.#valuesMax = limits.valuesMax;
    this.#depthMax = limits.depthMax;
  }

  message(shape: WireShape, end: number, depth: number, group = 0): Excess | null {
    if (depth > this.#depthMax) return tooDeep(this.#depthMax);
    while (this.#at < end) {
      const tag = this.#varint(end);
      const number = tag >>> 3;
      if (number === 0) return MALFORMED;
      if ((tag & 7) === END_GROUP) return number === group ? null : MALFORMED;
      if (++this.#values > this.#valuesMax) return tooMany(this.#valuesMax);
      const excess = this.#field(shape, tag & 7, number, end, depth);
      if (excess !== null) return excess;
      if (this.#at > end) return MALFORMED;
    }
    return group === 0 ? null : MALFORMED;
  }

  #field(shape: WireShape, wireType: number, number: number, end: number, depth: number): Excess | null {
    switch (wireType) {
      case VARINT:
        this.#varint(end);
        return null;
      case I64:
        this.#at += 8;
        return null;
      case I32:
        this.#at += 4;
        return null;
      case GROUP:
        return this.message(EMPTY, end, depth + 1, number);
      case LENGTH: {
        const length = this.#varint(end);
        const stop = this.#at + length;
        if (stop > end) return MALFORMED;
        const excess = this.#content(shape.fields.get(number), stop, depth);
        if (excess === null && this.#at !== stop) return MALFORMED;
        return excess;
      }
      default:
        return MALFORMED;
    }
  }

  #content(field: WireField | undefined, stop: number, depth: number): Excess | null {
    switch (field?.kind) {
      case 'message':
        return this.message(field.shape, stop, depth + 1);
      case 'text':
        return this.#text(stop);
      case 'key':
        if (PROTOTYPE_KEY.equals(this.#bytes.subarray(this.#at, stop))) return prototypeKey(field.map);
        return this.#text(stop);
      case 'packed':
        return this.#packed(field.width, stop);
      case undefined:
        this.#at = stop;
        return null;
    }
  }

  #text(stop: number): Excess | null {
    const start = this.#at;
    this.#at = stop;
    return stop - start < LONG_TEXT_BYTES || isUtf8(this.#bytes.subarray(start, stop)) ? null : MALFORMED;
  }

  #packed(width: 4 | 8 | 'varint', stop: number): Excess | null {
    if (width === 'varint') {
      for (; this.#at < stop; this.#at++) if ((this.#bytes[this.#at] ?? 0) < 0x80) this.#values++;
      if ((this.#bytes[stop - 1] ?? 0) >= 0x80) return MALFORMED;
    } else {
      this.#values += Math.ceil((stop - this.#at) / width);
      if ((stop - this.#at) % width !== 0) return MALFORMED;
      this.#at = stop;
    }
    return this.#values > this.#valuesMax ? tooMany(this.#valuesMax) : null;
  }

  /** Its low 32 bits. Past `end` or too long: the position says so, and the caller looks. */
  #varint(end: number): number {
    const bytes = this.#bytes;
    let at = this.#at;
    const first = bytes[at] ?? 0;
    if (first < 0x80) {
      this.#at = at + 1;
      return first;
    }
    let value = first & 0x7f;
    for (let shift = 7; ; shift += 7) {
      const byte = bytes[++at];
      if (byte === undefined || at >= end || shift > 7 * (VARINT_BYTES_MAX - 1)) {
        this.#at = end + 1;
        return 0;
      }
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        this.#at = at + 1;
        return value >>> 0;
      }
    }
  }
}
