// SPDX-License-Identifier: Apache-2.0
/** Differences as text: a line for each value, written as in a manifest. Pure. */
import { createHash } from 'node:crypto';
import type { Shape } from '../manifest/shape.ts';
import { exactBytes, exactMs, oneLine } from '../output/format.ts';
import { paint } from '../output/table.ts';

export interface Change {
  readonly field: string;
  /** Null when it is not there. */
  readonly before: string | null;
  readonly after: string | null;
  /** False: apply would refuse it. */
  readonly possible: boolean;
}

export interface ResourceDiff {
  readonly kind: string;
  readonly name: string;
  readonly file: string;
  readonly action: 'create' | 'update' | 'none';
  readonly revision: string | null;
  readonly changes: readonly Change[];
}

export function renderDiff({ kind, name, file, action, revision, changes }: ResourceDiff, colours: boolean): string {
  const was = action === 'create' ? 'not there' : `cluster, revision ${revision}`;
  const line = (sign: '-' | '+', field: string, value: string) =>
    paint(`${sign}${field}: ${oneLine(value)}`, colours ? (sign === '-' ? 'red' : 'green') : undefined);
  const lines = changes.flatMap(({ field, before, after }) => [
    ...(before === null ? [] : [line('-', field, before)]),
    ...(after === null ? [] : [line('+', field, after)]),
  ]);
  return `${[`--- ${kind}/${name} (${was})`, `+++ ${kind}/${name} (${file})`, ...lines].join('\n')}\n`;
}

/** A value of a spec, or a part of one, as lines. What is unset inside of something larger is left out. */
export function flatten(path: string, value: unknown, shape: Shape): readonly { field: string; value: string }[] {
  if (value === undefined || value === null) return [];
  switch (shape.type) {
    case 'object':
      return Object.entries(value).flatMap(([name, inner]) => {
        const of = shape.fields.get(name);
        return of === undefined || isUnset(inner) ? [] : flatten(`${path}.${name}`, inner, of);
      });
    case 'map':
      return Object.entries(value as Readonly<Record<string, unknown>>).map(([key, text]) => ({
        field: `${path}.${key}`,
        value: String(text),
      }));
    case 'list':
      return (value as readonly unknown[]).flatMap((item, index) => {
        const key = shape.key === '' ? undefined : (item as Readonly<Record<string, string>>)[shape.key];
        return flatten(`${path}[${key ?? index}]`, item, shape.of);
      });
    case 'bytes':
      return [{ field: path, value: exactBytes(BigInt(value as bigint | number)) }];
    case 'ms':
      return [{ field: path, value: exactMs(Number(value)) }];
    case 'enum':
      return [{ field: path, value: shape.names.find((name) => shape.values.get(enumKey(name)) === value) ?? '' }];
    case 'string':
      return [{ field: path, value: OPAQUE.test(path) ? digest(value as string) : (value as string) }];
    case 'int':
    case 'bool':
      return [{ field: path, value: String(value as number | boolean) }];
  }
}

/** First-boot data may hold passwords, and a diff often ends in a log: enough to see that they differ. */
const OPAQUE = /\.cloudInit\.[A-Za-z]+$/;

function digest(text: string): string {
  const sum = createHash('sha256').update(text).digest('hex').slice(0, 12);
  return `${Buffer.byteLength(text)} bytes (sha256 ${sum}…)`;
}

function enumKey(name: string): string {
  return name.replaceAll('-', '_');
}

function isUnset(value: unknown): boolean {
  return (
    value === undefined ||
    value === '' ||
    value === 0 ||
    value === 0n ||
    value === false ||
    (typeof value === 'string' && value.endsWith('_UNSPECIFIED'))
  );
}
