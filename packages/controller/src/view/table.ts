// SPDX-License-Identifier: Apache-2.0
import type { Revision } from '@busbar/core/ids';
import type { Kind, RecordOf } from '../records/kinds.ts';
import { recordKey } from '../records/kinds.ts';
import type { Compare } from '../store/cluster-store.ts';

/** A record with its place in the store's history. */
export interface Entry<T> {
  readonly id: string;
  readonly record: T;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
}

interface MaybeNamed {
  readonly meta?: { readonly name: string } | undefined;
}

/** All records of one kind, as of the view's revision. */
export class Table<K extends Kind> {
  readonly kind: K;
  readonly #byId = new Map<string, Entry<RecordOf<K>>>();
  readonly #idByName = new Map<string, string>();
  #sorted: readonly Entry<RecordOf<K>>[] | null = null;

  constructor(kind: K) {
    this.kind = kind;
  }

  get(id: string): Entry<RecordOf<K>> | undefined {
    return this.#byId.get(id);
  }

  /** By id, else by name. Names and ids never collide: ids are UUIDs (names begin with a letter and UUIDs of 36 characters with hyphens in fixed places are refused as names), or equal to the name. */
  find(nameOrId: string): Entry<RecordOf<K>> | undefined {
    return this.#byId.get(nameOrId) ?? this.#byId.get(this.#idByName.get(nameOrId) ?? '');
  }

  get size(): number {
    return this.#byId.size;
  }

  /** In order of name, or of id for records without name. */
  sorted(): readonly Entry<RecordOf<K>>[] {
    this.#sorted ??= [...this.#byId.values()].sort((a, b) => {
      const [x, y] = [nameOf(a.record) ?? a.id, nameOf(b.record) ?? b.id];
      return x < y ? -1 : x > y ? 1 : 0;
    });
    return this.#sorted;
  }

  ids(): Iterable<string> {
    return this.#byId.keys();
  }

  /** By creation. Records made in one transaction are in order of id. */
  oldestFirst(): readonly Entry<RecordOf<K>>[] {
    // Nearly in this order already, which the sort makes use of.
    return [...this.#byId.values()].sort((a, b) => {
      if (a.createRevision !== b.createRevision) return a.createRevision < b.createRevision ? -1 : 1;
      return a.id < b.id ? -1 : 1;
    });
  }

  set(entry: Entry<RecordOf<K>>): void {
    this.#forgetName(entry.id);
    this.#byId.set(entry.id, entry);
    const name = nameOf(entry.record);
    if (name !== undefined) this.#idByName.set(name, entry.id);
    this.#sorted = null;
  }

  delete(id: string): Entry<RecordOf<K>> | undefined {
    const entry = this.#byId.get(id);
    if (entry === undefined) return undefined;
    this.#forgetName(id);
    this.#byId.delete(id);
    this.#sorted = null;
    return entry;
  }

  #forgetName(id: string): void {
    const old = this.#byId.get(id);
    const name = old === undefined ? undefined : nameOf(old.record);
    if (name !== undefined && this.#idByName.get(name) === id) this.#idByName.delete(name);
  }
}

function nameOf(record: unknown): string | undefined {
  return (record as MaybeNamed).meta?.name;
}

/** Compares that the record is still as it was read. */
export function unchanged(kind: Kind, entry: Entry<unknown>): Compare {
  return { target: 'mod', key: recordKey(kind, entry.id), revision: entry.modRevision };
}

/** Compares that the record still exists (as the same incarnation), however it changed. */
export function exists(kind: Kind, entry: Entry<unknown>): Compare {
  return { target: 'create', key: recordKey(kind, entry.id), revision: entry.createRevision };
}

export function absent(key: string): Compare {
  return { target: 'mod', key, revision: 0n as Revision };
}
