// SPDX-License-Identifier: Apache-2.0
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

/**
 * Protocol Buffers messages as tables of fields: enough for the part of etcd's API that the store
 * uses, whose wire format has been frozen since etcd 3.0. As proto3 wants it, a field with its
 * default value is not written, an absent one reads as its default, and an unknown one is skipped.
 */
interface Field<T> {
  readonly tag: number;
  readonly wireType: WireType;
  readonly initial: T;
  /** `before` is what was read so far: repeated fields add to it. */
  read(reader: BinaryReader, before: T): T;
  /** Writes tag and value, or nothing for the default. */
  write(writer: BinaryWriter, value: T): void;
}

// biome-ignore lint/suspicious/noExplicitAny: the only way to say "fields of any type".
type Fields = Readonly<Record<string, Field<any>>>;
type ValueOf<F extends Fields> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };
export type MessageOf<M> = M extends Message<infer T> ? T : never;

/** What may be left out when writing: every field, at every depth. */
export type Draft<T> = T extends Uint8Array | string | number | bigint | boolean | undefined
  ? T
  : T extends readonly (infer Item)[]
    ? readonly Draft<Item>[]
    : { readonly [K in keyof T]?: Draft<T[K]> };

export interface Message<T> {
  encode(value: Draft<T>): Buffer;
  /** Into a message around it: a transaction of a hundred parts is one buffer. */
  write(writer: BinaryWriter, value: Draft<T>): void;
  decode(bytes: Uint8Array): T;
}

export function message<F extends Fields>(fields: F): Message<ValueOf<F>> {
  const entries = Object.entries(fields);
  const byTag = new Map(entries.map(([name, field]) => [field.tag, { name, field }]));
  function write(writer: BinaryWriter, value: unknown): void {
    for (const [name, field] of entries) {
      const given = (value as Readonly<Record<string, unknown>>)[name];
      if (given !== undefined) field.write(writer, given);
    }
  }
  return {
    write,
    encode(value) {
      const writer = new BinaryWriter();
      write(writer, value);
      const { buffer, byteOffset, byteLength } = writer.finish();
      return Buffer.from(buffer, byteOffset, byteLength);
    },
    decode(bytes) {
      const value: Record<string, unknown> = {};
      for (const [name, field] of entries) value[name] = field.initial;
      const reader = new BinaryReader(bytes);
      while (reader.pos < reader.len) {
        const [tag, wireType] = reader.tag();
        const known = byTag.get(tag);
        if (known === undefined || known.field.wireType !== wireType) reader.skip(wireType, tag);
        else value[known.name] = known.field.read(reader, value[known.name]);
      }
      return value as ValueOf<F>;
    },
  };
}

export function int64(tag: number): Field<bigint> {
  return {
    tag,
    wireType: WireType.Varint,
    initial: 0n,
    read: (reader) => BigInt(reader.int64()),
    write: (writer, value) => {
      if (value !== 0n) writer.tag(tag, WireType.Varint).int64(value);
    },
  };
}

export function uint64(tag: number): Field<bigint> {
  return {
    tag,
    wireType: WireType.Varint,
    initial: 0n,
    read: (reader) => BigInt(reader.uint64()),
    write: (writer, value) => {
      if (value !== 0n) writer.tag(tag, WireType.Varint).uint64(value);
    },
  };
}

/** An enum, too. */
export function int32(tag: number): Field<number> {
  return {
    tag,
    wireType: WireType.Varint,
    initial: 0,
    read: (reader) => reader.int32(),
    write: (writer, value) => {
      if (value !== 0) writer.tag(tag, WireType.Varint).int32(value);
    },
  };
}

export function bool(tag: number): Field<boolean> {
  return {
    tag,
    wireType: WireType.Varint,
    initial: false,
    read: (reader) => reader.bool(),
    write: (writer, value) => {
      if (value) writer.tag(tag, WireType.Varint).bool(true);
    },
  };
}

export function bytes(tag: number): Field<Uint8Array> {
  return {
    tag,
    wireType: WireType.LengthDelimited,
    initial: new Uint8Array(),
    read: (reader) => reader.bytes(),
    write: (writer, value) => {
      if (value.length > 0) writer.tag(tag, WireType.LengthDelimited).bytes(value);
    },
  };
}

/** A string, or bytes that hold UTF-8. Buffer decodes it: TextDecoder would swallow a leading byte order mark. */
export function text(tag: number): Field<string> {
  return {
    tag,
    wireType: WireType.LengthDelimited,
    initial: '',
    read: (reader) => {
      const raw = reader.bytes();
      return Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('utf8');
    },
    write: (writer, value) => {
      if (value !== '') writer.tag(tag, WireType.LengthDelimited).bytes(Buffer.from(value));
    },
  };
}

/** A message inside a message; absent unless given. Only the fields that are set need to be given. */
export function optional<T>(tag: number, type: Message<T>): Field<T | undefined> {
  return {
    tag,
    wireType: WireType.LengthDelimited,
    initial: undefined,
    read: (reader) => type.decode(reader.bytes()),
    write: (writer, value) => {
      if (value !== undefined) nested(writer, tag, type, value as Draft<T>);
    },
  };
}

export function repeated<T>(tag: number, type: Message<T>): Field<readonly T[]> {
  return {
    tag,
    wireType: WireType.LengthDelimited,
    initial: [],
    read: (reader, before) => {
      // The initial list is shared by all messages; from then on it is this message's own.
      const list = before.length === 0 ? [] : (before as T[]);
      list.push(type.decode(reader.bytes()));
      return list;
    },
    write: (writer, value) => {
      for (const item of value) nested(writer, tag, type, item as Draft<T>);
    },
  };
}

function nested<T>(writer: BinaryWriter, tag: number, type: Message<T>, value: Draft<T>): void {
  writer.tag(tag, WireType.LengthDelimited).fork();
  type.write(writer, value);
  writer.join();
}
