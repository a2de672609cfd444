// SPDX-License-Identifier: Apache-2.0
/**
 * The shape of what users write in YAML. `object<VmSpec>({...})` makes the compiler demand every field of the
 * API's message, so a field added to the proto cannot be forgotten here. Not zod: a wrong field must be reported
 * with its line, column and nearest known name, for which the check walks the YAML nodes themselves.
 */
export type Shape =
  | { readonly type: 'string'; readonly pattern?: RegExp; readonly expected?: string }
  | { readonly type: 'bool' }
  | { readonly type: 'int'; readonly min: number; readonly max: number }
  | { readonly type: 'bytes' }
  | { readonly type: 'ms' }
  | { readonly type: 'enum'; readonly values: ReadonlyMap<string, string>; readonly names: readonly string[] }
  | { readonly type: 'map'; readonly of?: Shape }
  | { readonly type: 'list'; readonly of: Shape; readonly key: string }
  | ObjectShape;

export interface ObjectShape {
  readonly type: 'object';
  readonly fields: ReadonlyMap<string, Shape>;
  readonly required: readonly string[];
}

/** Fields named ...Bytes are sizes and fields named ...Ms are durations, everywhere. */
type ShapeOfField<K> = K extends `${string}Bytes`
  ? { readonly type: 'bytes' }
  : K extends `${string}Ms`
    ? { readonly type: 'ms' }
    : Shape;

export function object<T>(
  fields: { [K in keyof Required<T>]: ShapeOfField<K> },
  required: readonly (keyof T & string)[] = [],
): ObjectShape {
  return { type: 'object', fields: new Map(Object.entries<Shape>(fields)), required };
}

export const string: Shape = { type: 'string' };
export const bool: Shape = { type: 'bool' };
export const bytes = { type: 'bytes' } as const;
export const ms = { type: 'ms' } as const;
/** String to string: labels and selectors. */
export const map: Shape = { type: 'map' };

/** Names chosen by the user, each with a value of the same shape. */
export function record(of: Shape): Shape {
  return { type: 'map', of };
}

export function int(min: number, max: number): Shape {
  return { type: 'int', min, max };
}

/** Elements are told apart by `key`; two with the same are refused. */
export function list(of: Shape, key = ''): Shape {
  return { type: 'list', of, key };
}

/** A resource's name (RFC 1035 label), checked here so that the line can be told. */
export const resourceName: Shape = {
  type: 'string',
  pattern: /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/,
  expected: '1 to 63 lower-case letters, digits and hyphens, beginning with a letter, not ending in a hyphen',
};

/** The name of a disk or NIC inside a VM: shorter, so that VM and disk names together fit a volume's name. */
export const innerName: Shape = {
  type: 'string',
  pattern: /^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$/,
  expected: '1 to 20 lower-case letters, digits and hyphens, beginning with a letter, not ending in a hyphen',
};

/** Accepts `q35`, `Q35` and `MACHINE_TYPE_Q35` for the enum generated with the prefix `MACHINE_TYPE`. */
export function enumeration(generated: Readonly<Record<string, string>>): Shape {
  const values = new Map<string, string>();
  const names: string[] = [];
  const all = Object.values(generated);
  // Of the values and not of the generated keys: those keep the prefix when what follows begins with a digit.
  const prefix = all.find((value) => value.endsWith('_UNSPECIFIED'))?.slice(0, -'UNSPECIFIED'.length) ?? '';
  for (const full of all) {
    const short = full.slice(prefix.length).toLowerCase();
    if (short === 'unspecified' || full === 'UNRECOGNIZED') continue;
    values.set(short, full);
    values.set(full.toLowerCase(), full);
    names.push(short.replaceAll('_', '-'));
  }
  return { type: 'enum', values, names };
}
