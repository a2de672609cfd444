// SPDX-License-Identifier: Apache-2.0
/** Messages and fields of the API as the CLI talks about them: JSON names, units from names, short enum values. */

import { type DescEnum, type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { ok, type Result, refuse } from '@busbar/core/result';
import { nearest } from '../manifest/suggest.ts';
import { descriptors } from './descriptors.ts';

/** `bytes` is a size in bytes, `ms` a duration; binary data is `data`. */
export type FieldType = 'text' | 'bool' | 'number' | 'bytes' | 'ms' | 'time' | 'enum' | 'map' | 'object' | 'data';

export interface EnumValue {
  /** As the CLI writes it, e.g. "virtio". */
  readonly name: string;
  /** As the API's JSON writes it, e.g. "DISK_BUS_VIRTIO". */
  readonly json: string;
  readonly comment: string;
}

export interface Field {
  readonly name: string;
  readonly type: FieldType;
  readonly list: boolean;
  readonly comment: string;
  /** Of an object, or of the objects in a list: its message. */
  readonly message?: string;
  readonly values?: readonly EnumValue[];
  /** What an enum means that is not set; empty when that is never the case. */
  readonly unset?: string;
}

export interface Message {
  readonly name: string;
  readonly comment: string;
  readonly fields: readonly Field[];
}

export interface PathProblem {
  /** The part of the path that is not known. */
  readonly at: string;
  readonly problem: string;
  readonly expected: string;
}

/** A field, or an entry of the map that the field before it is. */
export type PathStep = { readonly field: Field } | { readonly key: string };

/** Field numbers in descriptor.proto: FileDescriptorProto.message_type and .enum_type, DescriptorProto.field. */
const [MESSAGES, ENUMS, FIELDS, VALUES] = [4, 5, 2, 2] as const;

export function message(fullName: string): Message {
  const found = descriptors().registry.getMessage(fullName);
  if (found === undefined) throw new Error(`${fullName} is not in the descriptors`);
  return { name: fullName, comment: commentOf(found), fields: found.fields.map((field) => fieldOf(found, field)) };
}

/** Follows a path such as "spec.disks.bus"; a list's fields are reached with or without an index. */
export function walk(root: string, path: string): Result<readonly PathStep[], PathProblem> {
  const steps: PathStep[] = [];
  const words = path.split('.');
  let at: string | undefined = root;
  for (const [index, word] of words.entries()) {
    const last = steps.at(-1);
    if (last !== undefined && 'field' in last && last.field.type === 'map') {
      // Keys may hold dots, so the rest of the path is the key.
      steps.push({ key: words.slice(index).join('.') });
      return ok(steps);
    }
    if (at === undefined) {
      const parent = words.slice(0, index).join('.');
      return refuse({ at: word, problem: `${parent} has no fields`, expected: parent });
    }
    const { fields } = message(at);
    const wanted = word.replace(/\[\d*\]$/, '').replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    const field = fields.find(({ name }) => name === wanted);
    if (field === undefined) return refuse(unknownField(word, words.slice(0, index), fields));
    steps.push({ field });
    at = field.message;
  }
  return ok(steps);
}

function unknownField(word: string, before: readonly string[], fields: readonly Field[]): PathProblem {
  const names = fields.map(({ name }) => name);
  const near = nearest(word, names);
  const where = before.length === 0 ? '' : ` in ${before.join('.')}`;
  const expected = near === undefined ? `one of ${names.join(', ')}` : [...before, near].join('.');
  return { at: word, problem: `there is no field ${JSON.stringify(word)}${where}`, expected };
}

function fieldOf(parent: DescMessage, field: DescField): Field {
  const comment = descriptors().comment(parent.file, [...pathOf(parent), FIELDS, parent.fields.indexOf(field)]);
  const base = { name: field.jsonName, list: field.fieldKind === 'list', comment };
  switch (field.fieldKind) {
    case 'map':
      return { ...base, type: 'map' };
    case 'scalar':
      return { ...base, type: scalarType(field.scalar, field.jsonName) };
    case 'enum':
      return { ...base, type: 'enum', ...enumOf(field.enum) };
    case 'message':
      return { ...base, ...objectOf(field.message) };
    case 'list':
      switch (field.listKind) {
        case 'scalar':
          return { ...base, type: scalarType(field.scalar, field.jsonName) };
        case 'enum':
          return { ...base, type: 'enum', ...enumOf(field.enum) };
        case 'message':
          return { ...base, ...objectOf(field.message) };
      }
  }
}

function objectOf(of: DescMessage): { readonly type: FieldType; readonly message?: string } {
  if (of.typeName === 'google.protobuf.Timestamp') return { type: 'time' };
  return { type: 'object', message: of.typeName };
}

function scalarType(scalar: ScalarType, name: string): FieldType {
  switch (scalar) {
    case ScalarType.STRING:
      return 'text';
    case ScalarType.BOOL:
      return 'bool';
    case ScalarType.BYTES:
      return 'data';
    default:
      return name.endsWith('Bytes') ? 'bytes' : name.endsWith('Ms') ? 'ms' : 'number';
  }
}

function enumOf(of: DescEnum): { readonly values: readonly EnumValue[]; readonly unset: string } {
  // Not `sharedPrefix`: there is none when what follows begins with a digit.
  const prefix = of.values[0]?.name.replace(/UNSPECIFIED$/, '') ?? '';
  const index = of.file.enums.indexOf(of);
  const values = of.values.map((value, position) => ({
    name: value.name.slice(prefix.length).toLowerCase().replaceAll('_', '-'),
    json: value.name,
    comment: descriptors().comment(of.file, [ENUMS, index, VALUES, position]),
  }));
  const [unset, ...rest] = values;
  return { values: rest, unset: unset === undefined || unset.comment === 'Never stored.' ? '' : unset.comment };
}

function commentOf(of: DescMessage): string {
  return descriptors().comment(of.file, pathOf(of));
}

/** Messages are not nested in this API (buf lint sees to it), but for the entries of maps. */
function pathOf(of: DescMessage): readonly number[] {
  return [MESSAGES, of.file.messages.indexOf(of)];
}
