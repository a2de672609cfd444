// SPDX-License-Identifier: Apache-2.0
import type { Revision } from '@busbar/core/ids';
import { decodeRecord, type Kind, type RecordOf, recordKey } from '../records/kinds.ts';
import type { Compare, KeyValue } from '../store/cluster-store.ts';

/** A record with its place in the store's history. */
export interface Entry<T> {
  readonly id: string;
  readonly record: T;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
  /** Characters of its text in the store: how much work it is to show. Unset for what was not read from there. */
  readonly storedLength?: number;
}

interface MaybeNamed {
  readonly meta?: { readonly name: string } | undefined;
}

/**
 * Each change brings one of these to every controller, most of which are never asked for it: they are decoded when somebody
 * looks. They have no name that they would have to be found by, and are written once: there is no former version to
 * keep when one cannot be read.
 */
const DECODED_LATE: ReadonlySet<Kind> = new Set<Kind>(['audit', 'event']);

export interface RecordPlace {
  readonly id: string;
  readonly createRevision: Revision;
}

/** Is told of each record as the store has it, without anybody having read it. */
export interface TableObserver {
  put(id: string, text: string): void;
  delete(id: string): void;
}

/** A record as the store has it. */
class Unread {
  readonly id: string;
  readonly text: string;
  readonly createRevision: Revision;
  readonly modRevision: Revision;

  constructor(id: string, { value, createRevision, modRevision }: KeyValue) {
    this.id = id;
    this.text = value;
    this.createRevision = createRevision;
    this.modRevision = modRevision;
  }
}

/** All records of one kind, as of the view's revision. */
export class Table<K extends Kind> {
  readonly kind: K;
  readonly #unreadable: (id: string, error: unknown) => void;
  readonly #byId = new Map<string, Entry<RecordOf<K>> | Unread>();
  readonly #idByName = new Map<string, string>();
  #sorted: readonly Entry<RecordOf<K>>[] | null = null;
  #observer: TableObserver | null = null;
  #byAge: readonly RecordPlace[] | null = null;

  /** `unreadable` is told of a record that this version cannot read. It counts as absent; its former version stays. */
  constructor(kind: K, unreadable: (id: string, error: unknown) => void = () => {}) {
    this.kind = kind;
    this.#unreadable = unreadable;
  }

  /** From the first record on. Only of kinds that are decoded late. */
  observe(observer: TableObserver): void {
    if (this.#byId.size > 0 || !DECODED_LATE.has(this.kind))
      throw new Error(`${this.kind} cannot be observed from here on`);
    this.#observer = observer;
  }

  get(id: string): Entry<RecordOf<K>> | undefined {
    const found = this.#byId.get(id);
    return found instanceof Unread ? this.#read(found) : found;
  }

  /** Of the newest version that could be read, or was not looked at yet. */
  revisionOf(id: string): Revision | undefined {
    return this.#byId.get(id)?.modRevision;
  }

  /** By id, else by name. Names and ids never collide: ids are UUIDs (names begin with a letter and UUIDs of 36 characters with hyphens in fixed places are refused as names), or equal to the name. */
  find(nameOrId: string): Entry<RecordOf<K>> | undefined {
    return this.get(nameOrId) ?? this.get(this.#idByName.get(nameOrId) ?? '');
  }

  get size(): number {
    return this.#byId.size;
  }

  /** In order of name, or of id for records without name. */
  sorted(): readonly Entry<RecordOf<K>>[] {
    this.#sorted ??= this.#all().sort((a, b) => {
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
    return this.#all().sort(byAge);
  }

  /** The same order, without reading the records: of some kinds there are so many that this would hold up everybody. */
  placesByAge(): readonly RecordPlace[] {
    this.#byAge ??= [...this.#byId.values()].sort(byAge);
    return this.#byAge;
  }

  /** Takes what the store has. Returns false when it cannot be read, as far as that is known now. */
  take(id: string, kv: KeyValue): boolean {
    if (DECODED_LATE.has(this.kind)) {
      this.#byId.set(id, new Unread(id, kv));
      this.#observer?.put(id, kv.value);
      this.#changed();
      return true;
    }
    const entry = this.#decode(id, kv.value, kv);
    if (entry !== undefined) this.set(entry);
    return entry !== undefined;
  }

  set(entry: Entry<RecordOf<K>>): void {
    this.#forgetName(entry.id);
    this.#byId.set(entry.id, entry);
    const name = nameOf(entry.record);
    if (name !== undefined) this.#idByName.set(name, entry.id);
    this.#changed();
  }

  /** The name that it had, '' where it had none; undefined when there is no such record. */
  delete(id: string): string | undefined {
    const entry = this.#byId.get(id);
    if (entry === undefined) return undefined;
    this.#forgetName(id);
    this.#byId.delete(id);
    this.#observer?.delete(id);
    this.#changed();
    return entry instanceof Unread ? '' : (nameOf(entry.record) ?? '');
  }

  #changed(): void {
    this.#sorted = null;
    this.#byAge = null;
  }

  #forgetName(id: string): void {
    const old = this.#byId.get(id);
    const name = old === undefined || old instanceof Unread ? undefined : nameOf(old.record);
    if (name !== undefined && this.#idByName.get(name) === id) this.#idByName.delete(name);
  }

  #all(): Entry<RecordOf<K>>[] {
    const all: Entry<RecordOf<K>>[] = [];
    for (const found of this.#byId.values()) {
      const entry = found instanceof Unread ? this.#read(found) : found;
      if (entry !== undefined) all.push(entry);
    }
    return all;
  }

  #read(unread: Unread): Entry<RecordOf<K>> | undefined {
    const entry = this.#decode(unread.id, unread.text, unread);
    if (entry === undefined) this.#byId.delete(unread.id);
    else this.#byId.set(unread.id, entry);
    return entry;
  }

  #decode(id: string, text: string, place: Pick<KeyValue, 'createRevision' | 'modRevision'>) {
    try {
      const { createRevision, modRevision } = place;
      const record = decodeRecord(this.kind, text);
      const entry: Entry<RecordOf<K>> = { id, record, createRevision, modRevision, storedLength: text.length };
      return entry;
    } catch (error) {
      // A record that this version cannot read must not stop the rest of the cluster.
      this.#unreadable(id, error);
      return undefined;
    }
  }
}

/** Nearly in this order already, which the sort makes use of. */
function byAge(a: RecordPlace, b: RecordPlace): number {
  if (a.createRevision !== b.createRevision) return a.createRevision < b.createRevision ? -1 : 1;
  return a.id < b.id ? -1 : 1;
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
