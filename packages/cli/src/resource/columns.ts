// SPDX-License-Identifier: Apache-2.0
/** Columns that many tables have, so that they look, sort and filter the same everywhere. */
import type { ResourceMeta } from '@busbar/proto/gen/busbar/v1/common';
import { formatAge, formatBytes, formatEnum } from '../output/format.ts';
import type { Colour, Column } from '../output/table.ts';

interface WithMeta {
  readonly meta?: ResourceMeta | undefined;
}

/** The words of a generated enum as tables show them, e.g. VM_PHASE_RUNNING → "running". */
export function wordsOf(generated: Readonly<Record<string, string>>, prefix: string): readonly string[] {
  return Object.values(generated)
    .filter((value) => value.startsWith(`${prefix}_`) && !value.endsWith('_UNSPECIFIED'))
    .map((value) => formatEnum(value, prefix));
}

export interface EnumColumn<T> {
  readonly header: string;
  readonly generated: Readonly<Record<string, string>>;
  readonly prefix: string;
  readonly of: (item: T) => string | undefined;
  readonly wide?: true;
  colour?(item: T): Colour | undefined;
}

export function enumColumn<T>({ generated, prefix, of, ...column }: EnumColumn<T>): Column<T> {
  const value = (item: T) => formatEnum(of(item), prefix);
  const known = [...wordsOf(generated, prefix), 'unknown'];
  return { ...column, value, measure: { kind: 'words', known, of: (item) => [value(item)] } };
}

export function flagColumn<T>(header: string, of: (item: T) => boolean, wide?: true): Column<T> {
  const value = (item: T) => (of(item) ? 'yes' : 'no');
  return {
    header,
    value,
    ...(wide === undefined ? {} : { wide }),
    measure: { kind: 'words', known: ['yes', 'no'], of: (item) => [value(item)] },
  };
}

export function numberColumn<T>(header: string, of: (item: T) => number | bigint, wide?: true): Column<T> {
  const measure = { kind: 'number', of } as const;
  return { header, value: (item) => String(of(item)), right: true, measure, ...(wide === undefined ? {} : { wide }) };
}

export function sizeColumn<T>(header: string, of: (item: T) => bigint, wide?: true): Column<T> {
  const measure = { kind: 'bytes', of } as const;
  return {
    header,
    value: (item) => formatBytes(of(item)),
    right: true,
    measure,
    ...(wide === undefined ? {} : { wide }),
  };
}

export function ageColumn<T>(of: (item: T) => Date | undefined): Column<T> {
  return {
    header: 'AGE',
    value: (item, now) => formatAge(of(item), now),
    right: true,
    measure: { kind: 'age', of },
  };
}

export function nameColumn<T extends WithMeta>(): Column<T> {
  return { header: 'NAME', value: (item) => item.meta?.name ?? '' };
}

/** At the end of -o wide: what scripts and reports need. */
export function metaColumns<T extends WithMeta>(): readonly Column<T>[] {
  return [
    {
      header: 'LABELS',
      value: ({ meta }) =>
        Object.entries(meta?.labels ?? {})
          .map(([key, value]) => `${key}=${value}`)
          .join(','),
      wide: true,
    },
    { header: 'REVISION', value: ({ meta }) => String(meta?.revision ?? ''), right: true, wide: true },
    { header: 'ID', value: ({ meta }) => meta?.id ?? '', wide: true },
  ];
}
