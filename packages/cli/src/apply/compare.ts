// SPDX-License-Identifier: Apache-2.0
/**
 * What of a document differs from what exists. A document says only what its author cares about: fields that it leaves
 * out are left alone, because the cluster fills them with defaults. Lists and label maps are taken as a whole. Pure.
 */
import type { Plain, PlainObject } from '../manifest/check.ts';
import type { ObjectShape, Shape } from '../manifest/shape.ts';

export type RefKind = 'image' | 'volume' | 'network';
/** The id behind a name, if there is such a resource. */
export type Resolve = (kind: RefKind, name: string) => string | undefined;

/** Fields that hold a name in the document and an id in the cluster. */
const REFERENCES: ReadonlySet<string> = new Set<RefKind>(['image', 'volume', 'network']);
/** Fields whose zero means "the cluster chooses": what it chose is no difference. */
const CHOSEN_BY_CLUSTER: ReadonlySet<string> = new Set([
  'sizeBytes',
  'bootOrder',
  'shutdownTimeoutMs',
  'macAddress',
  'realtimePriority',
  'count',
  'model',
  'image',
  'volume',
]);

export function isReference(field: string): field is RefKind {
  return REFERENCES.has(field);
}

type Existing = Readonly<Record<string, unknown>>;

export interface Difference {
  readonly path: string;
  readonly shape: Shape;
  /** As it is in the cluster; undefined when it is not there. */
  readonly before: unknown;
  readonly after: Plain;
}

/** Where below `path` the existing resource is not as wanted. */
export function differences(
  wanted: PlainObject,
  existing: unknown,
  shape: ObjectShape,
  path: string,
  resolve: Resolve,
): Difference[] {
  const other = (existing ?? {}) as Existing;
  // Exported by a viewer, who does not see the data: the document has no opinion on them.
  if (wanted['redacted'] === true) return [];
  return Object.entries(wanted).flatMap(([field, value]) => {
    const fieldShape = shape.fields.get(field);
    return fieldShape === undefined ? [] : differs(value, other[field], fieldShape, field, `${path}.${field}`, resolve);
  });
}

function differs(
  wanted: Plain,
  existing: unknown,
  shape: Shape,
  field: string,
  path: string,
  resolve: Resolve,
): Difference[] {
  if (CHOSEN_BY_CLUSTER.has(field) && (wanted === '' || wanted === 0 || wanted === 0n)) return [];
  const here = [{ path, shape, before: existing, after: wanted }];
  switch (shape.type) {
    case 'object':
      return differences(wanted as PlainObject, existing, shape, path, resolve);
    case 'list':
      return listDiffers(wanted as readonly Plain[], (existing ?? []) as readonly unknown[], shape, path, resolve);
    case 'map':
      return sameMap(wanted as PlainObject, (existing ?? {}) as PlainObject) ? [] : here;
    case 'bytes':
    case 'ms':
    case 'int':
      return BigInt(wanted as bigint | number) === BigInt((existing ?? 0) as bigint | number) ? [] : here;
    case 'bool':
      return wanted === (existing ?? false) ? [] : here;
    case 'string':
    case 'enum': {
      if (wanted === (existing ?? '')) return [];
      const same = isReference(field) && typeof wanted === 'string' && resolve(field, wanted) === existing;
      return same ? [] : here;
    }
  }
}

function listDiffers(
  wanted: readonly Plain[],
  existing: readonly unknown[],
  shape: Extract<Shape, { type: 'list' }>,
  path: string,
  resolve: Resolve,
): Difference[] {
  if (wanted.length !== existing.length) return [{ path, shape, before: existing, after: wanted }];
  const { of, key } = shape;
  return wanted.flatMap((item, index) => {
    const here = `${path}[${index}]`;
    if (of.type !== 'object') {
      return item === existing[index] ? [] : [{ path: here, shape: of, before: existing[index], after: item }];
    }
    const other = existing[indexOf(item as PlainObject, index, existing as readonly Existing[], key)];
    if (key === '' && saysMore(other as Existing, item as PlainObject))
      return [{ path: here, shape: of, before: other, after: item }];
    if (other === undefined) return [{ path: here, shape: of, before: existing[index], after: item }];
    return differences(item as PlainObject, other, of, here, resolve);
  });
}

/** Elements without a key are told apart by their place. */
function indexOf(item: PlainObject, index: number, existing: readonly Existing[], key: string): number {
  return key === '' ? index : existing.findIndex((candidate) => candidate[key] === item[key]);
}

/** An element without a key is replaced as a whole: what the document leaves out of it goes. */
function saysMore(existing: Existing, item: PlainObject): boolean {
  return Object.entries(existing).some(([field, value]) => !(field in item) && Boolean(value));
}

export function sameMap(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && a[key] === b[key]);
}

/** The existing spec with the document's fields laid over it: what an update sends. */
export function overlay(existing: unknown, wanted: PlainObject, shape: ObjectShape): PlainObject {
  const result: Record<string, Plain> = { ...((existing ?? {}) as PlainObject) };
  for (const [field, value] of Object.entries(wanted)) {
    const fieldShape = shape.fields.get(field);
    if (fieldShape?.type === 'object') result[field] = overlay(result[field], value as PlainObject, fieldShape);
    else if (fieldShape?.type === 'list')
      result[field] = overlayList(result[field], value as readonly Plain[], fieldShape);
    else result[field] = value;
  }
  return result;
}

function overlayList(
  existing: unknown,
  wanted: readonly Plain[],
  shape: Extract<Shape, { type: 'list' }>,
): readonly Plain[] {
  const { of, key } = shape;
  if (of.type !== 'object') return wanted;
  const before = (existing ?? []) as readonly PlainObject[];
  return wanted.map((item, index) => {
    const other = key === '' ? undefined : before[indexOf(item as PlainObject, index, before, key)];
    return overlay(other, item as PlainObject, of);
  });
}
