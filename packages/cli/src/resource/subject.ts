// SPDX-License-Identifier: Apache-2.0
/**
 * What --columns, --sort and --filter can name: the columns of the noun's table, and every field of the API's message
 * by its path (`spec.cpu.vcpus`, `disks` of a list without an index, `labels.plant` for short).
 */
import { nearest } from '../manifest/suggest.ts';
import { formatBytes } from '../output/format.ts';
import type { Column } from '../output/table.ts';
import type { Field, PathStep } from '../schema/schema.ts';
import type { Shown } from './resource.ts';

export type Scalar = string | number | bigint | Date | boolean;
export type SubjectKind = 'text' | 'words' | 'number' | 'bytes' | 'ms' | 'age' | 'time' | 'bool';

export interface Subject<T> {
  readonly kind: SubjectKind;
  /** For words: all there are. */
  readonly known: readonly string[];
  /** Several for lists; none when a map has no such key. */
  of(item: T, now: Date): readonly Scalar[];
}

/** The name means nothing; `expected` says what is near. */
export class UnknownSubject extends Error {
  override readonly name = 'UnknownSubject';
  readonly expected: string;

  constructor(problem: string, expected: string) {
    super(problem);
    this.expected = expected;
  }
}

export function columnKey<T>(column: Column<T>): string {
  return column.key ?? column.header.toLowerCase().replaceAll(' ', '-');
}

export async function columnFor<T>(resource: Shown<T>, name: string): Promise<Column<T>> {
  const column = resource.columns.find((candidate) => columnKey(candidate) === name.toLowerCase());
  if (column !== undefined) return column;
  const { field, of } = await resolve(resource, name);
  const right = field?.type === 'number' || field?.type === 'bytes' || field?.type === 'ms';
  return {
    header: name.toUpperCase(),
    value: (item) =>
      of(item)
        .map((value) => shown(field, value))
        .join(','),
    ...(right ? { right } : {}),
  };
}

export async function subjectFor<T>(resource: Shown<T>, name: string): Promise<Subject<T>> {
  const column = resource.columns.find((candidate) => columnKey(candidate) === name.toLowerCase());
  if (column !== undefined) return ofColumn(column);
  const { field, of } = await resolve(resource, name);
  const kind = field === undefined ? 'text' : KINDS[field.type];
  if (kind === undefined) throw new UnknownSubject(`${name} is not a single value`, await inside(name, field));
  const known = field?.values?.map((value) => value.name) ?? [];
  return { kind, known, of: (item) => of(item).map((value) => scalar(kind, field, value)) };
}

async function inside(name: string, field: Field | undefined): Promise<string> {
  if (field?.message === undefined) return `${name}.KEY`;
  const { message } = await import('../schema/schema.ts');
  const fields = message(field.message).fields.map((inner) => `${name}.${inner.name}`);
  return `one of its fields: ${fields.join(', ')}`;
}

const KINDS: Readonly<Record<Field['type'], SubjectKind | undefined>> = {
  text: 'text',
  bool: 'bool',
  number: 'number',
  bytes: 'bytes',
  ms: 'ms',
  time: 'time',
  enum: 'words',
  map: undefined,
  object: undefined,
  data: undefined,
};

function ofColumn<T>(column: Column<T>): Subject<T> {
  const { measure } = column;
  switch (measure?.kind) {
    case undefined:
      return { kind: 'text', known: [], of: (item, now) => [column.value(item, now)] };
    case 'words':
      return { kind: 'words', known: measure.known, of: (item) => measure.of(item) };
    case 'age':
      return { kind: 'age', known: [], of: (item) => present(measure.of(item)) };
    case 'number':
    case 'bytes':
      return { kind: measure.kind, known: [], of: (item) => [measure.of(item)] };
  }
}

function present(date: Date | undefined): readonly Date[] {
  return date === undefined ? [] : [date];
}

interface Resolved<T> {
  /** Undefined for an entry of a map. */
  readonly field: Field | undefined;
  /** Values of the API's JSON; zero for what proto3's JSON leaves out. */
  readonly of: (item: T) => readonly unknown[];
}

async function resolve<T>(resource: Shown<T>, name: string): Promise<Resolved<T>> {
  const { walk } = await import('../schema/schema.ts');
  const path = /^labels\./.test(name) ? `meta.${name}` : name;
  const steps = walk(resource.message, path);
  if (!steps.ok) {
    const keys = resource.columns.map(columnKey);
    const near = name.includes('.') ? undefined : nearest(name, keys);
    const paths = `${keys.join(', ')}, or a path such as meta.name (busbar explain ${resource.singular})`;
    const nearPath = steps.error.expected.startsWith('one of ') ? undefined : steps.error.expected;
    const better = near ?? (name.includes('.') ? nearPath : undefined);
    throw new UnknownSubject(
      name.includes('.') ? steps.error.problem : `there is no column ${JSON.stringify(name)}`,
      better === undefined ? `one of ${paths}` : `did you mean ${better}?`,
    );
  }
  const last = steps.value.at(-1);
  const field = last !== undefined && 'field' in last ? last.field : undefined;
  return { field, of: (item) => follow([resource.toJson(item)], steps.value) };
}

function follow(values: readonly unknown[], steps: readonly PathStep[]): readonly unknown[] {
  return steps.reduce<readonly unknown[]>((now, step) => {
    return now.flatMap((value) => {
      const container = (value ?? {}) as Readonly<Record<string, unknown>>;
      if ('key' in step) return Object.hasOwn(container, step.key) ? [container[step.key]] : [];
      const inner = container[step.field.name] ?? zero(step.field);
      return Array.isArray(inner) ? (inner as unknown[]) : inner === undefined ? [] : [inner];
    });
  }, values);
}

function zero({ type, list }: Field): unknown {
  if (list) return [];
  switch (type) {
    case 'text':
    case 'enum':
      return '';
    case 'bool':
      return false;
    case 'number':
    case 'bytes':
    case 'ms':
      return 0;
    case 'map':
    case 'object':
      return {};
    case 'time':
    case 'data':
      return undefined;
  }
}

function scalar(kind: SubjectKind, field: Field | undefined, value: unknown): Scalar {
  switch (kind) {
    case 'number':
    case 'bytes':
    case 'ms':
      // int64 is text in the API's JSON.
      return typeof value === 'string' && /^-?\d+$/.test(value) ? BigInt(value) : Number(value);
    case 'time':
      return new Date(String(value));
    case 'bool':
      return value === true;
    case 'words':
      return word(field, value);
    case 'text':
    case 'age':
      return String(value);
  }
}

/** DISK_BUS_VIRTIO is "virtio" for people. */
function word(field: Field | undefined, value: unknown): string {
  return field?.values?.find(({ json }) => json === value)?.name ?? '';
}

function shown(field: Field | undefined, value: unknown): string {
  if (field?.type === 'bytes') return formatBytes(BigInt(String(value)));
  if (field?.type === 'enum') return word(field, value);
  return typeof value === 'string' ? value : JSON.stringify(value);
}
