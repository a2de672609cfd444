// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import type { Clock } from '@busbar/core/clock/clock';
import type { Revision } from '@busbar/core/ids';
import type {
  Compare,
  KeyValue,
  LeaseId,
  Read,
  StoreHistory,
  StoreUsage,
  Transaction,
  TransactionResult,
  WatchEvent,
  Write,
} from './cluster-store.ts';
import { leaseGone, storeFull } from './errors.ts';
import { compareKeys } from './request.ts';

interface Entry extends KeyValue {
  readonly lease: LeaseId | undefined;
}

interface Lease {
  readonly ttlMs: number;
  readonly keys: Set<string>;
  timer: Disposable;
}

export interface MemoryTruthOptions {
  readonly clock: Clock;
  /** How many revisions of history are kept at most; older ones are compacted. */
  readonly keepRevisions?: number;
  /** etcd looks for expired leases every 500 ms, so keys outlive their lease by up to that. */
  readonly leaseExpiryLagMs?: number;
  /** Default: none. A write that would go beyond it fills the store, until `setFull(false)`. */
  readonly quotaBytes?: number;
}

/** As the file of `etcdctl snapshot save`. */
export interface MemorySnapshot {
  readonly revision: Revision;
  readonly entries: readonly (KeyValue & { readonly lease: LeaseId | undefined })[];
  readonly leases: ReadonlyMap<LeaseId, number>;
}

/** What etcd and its database add to a key and its value, roughly. */
const REVISION_BYTES = 128;

export type Changes =
  | { readonly kind: 'compacted' }
  | { readonly kind: 'changes'; readonly revision: Revision; readonly events: readonly WatchEvent[] };

/**
 * The truth behind any number of MemoryStore clients: etcd's data model in one process, without
 * replication. Each method is one atomic step; who can reach it, and how late, is the clients' matter.
 */
export class MemoryTruth {
  readonly #clock: Clock;
  readonly #keepRevisions: number;
  readonly #leaseExpiryLagMs: number;
  readonly #entries = new Map<string, Entry>();
  /** Keys in byte order; null after a key came or went. */
  #sortedKeys: string[] | null = [];
  /** etcd's first revision is 1 and empty; the first write makes 2. */
  #revision = 1n as Revision;
  #compacted = 0n as Revision;
  #clusterId = 'cafe';
  /** As etcd's raft index: also counts what leaves the revision as it is, such as granted leases. */
  #logLength = 3n;
  #history: { readonly revision: Revision; readonly events: readonly WatchEvent[] }[] = [];
  readonly #leases = new Map<LeaseId, Lease>();
  #nextLease = 1;
  #quorum = true;
  #full = false;
  readonly #quotaBytes: number;
  /** Of every revision that is not compacted, as etcd keeps them. */
  #inUseBytes = 0;
  #fileBytes = 0;
  readonly #watchers = new Set<() => void>();
  readonly #waitingForQuorum = new Set<() => void>();

  constructor(options: MemoryTruthOptions) {
    this.#clock = options.clock;
    this.#keepRevisions = options.keepRevisions ?? 10_000;
    this.#leaseExpiryLagMs = options.leaseExpiryLagMs ?? 0;
    this.#quotaBytes = options.quotaBytes ?? Number.POSITIVE_INFINITY;
  }

  get revision(): Revision {
    return this.#revision;
  }

  get hasQuorum(): boolean {
    return this.#quorum;
  }

  /** Without quorum nothing is read, written or expired. With it back every lease starts afresh, as under a new etcd leader. */
  setQuorum(quorum: boolean): void {
    if (quorum === this.#quorum) return;
    this.#quorum = quorum;
    for (const [id, lease] of this.#leases) {
      lease.timer[Symbol.dispose]();
      if (quorum) lease.timer = this.#expiryTimer(id, lease.ttlMs);
    }
    if (!quorum) return;
    const waiting = [...this.#waitingForQuorum];
    this.#waitingForQuorum.clear();
    for (const run of waiting) run();
  }

  /** As etcd with its NOSPACE alarm: what grows the database is refused, whatever it compares; all else goes on. */
  setFull(full: boolean): void {
    this.#full = full;
  }

  usage(): StoreUsage {
    return { fileBytes: this.#fileBytes, inUseBytes: this.#inUseBytes };
  }

  /** Runs `step` now, or as soon as there is a quorum, unless disposed before. */
  whenQuorum(step: () => void): Disposable {
    if (this.#quorum) step();
    else this.#waitingForQuorum.add(step);
    return { [Symbol.dispose]: () => this.#waitingForQuorum.delete(step) };
  }

  history(): StoreHistory {
    return { clusterId: this.#clusterId, logLength: this.#logLength, revision: this.#revision };
  }

  snapshot(): MemorySnapshot {
    const leases = new Map([...this.#leases].map(([id, { ttlMs }]) => [id, ttlMs]));
    return { revision: this.#revision, entries: [...this.#entries.values()], leases };
  }

  /**
   * As `etcdctl snapshot restore` on all members: records and revision of the snapshot, a new log. Leases begin anew. With the
   * token that the cluster had before, the id is the former one, too. Whoever watches from a later revision hears
   * nothing until that is reached, as from etcd.
   */
  restore({ revision, entries, leases }: MemorySnapshot, clusterId: string = this.#clusterId): void {
    for (const lease of this.#leases.values()) lease.timer[Symbol.dispose]();
    this.#leases.clear();
    for (const [id, ttlMs] of leases) {
      const keys = new Set(entries.filter(({ lease }) => lease === id).map(({ key }) => key));
      this.#leases.set(id, { ttlMs, keys, timer: this.#expiryTimer(id, ttlMs) });
    }
    this.#entries.clear();
    for (const entry of entries) this.#entries.set(entry.key, entry);
    this.#sortedKeys = null;
    this.#revision = revision;
    this.#compacted = revision;
    this.#history = [];
    this.#clusterId = clusterId;
    this.#logLength = 3n;
    this.#inUseBytes = this.#bytesKept();
    this.#fileBytes = this.#inUseBytes;
    this.#notify();
  }

  get(key: string): Read<KeyValue | null> {
    return { value: toKeyValue(this.#entries.get(key)), revision: this.#revision };
  }

  list(prefix: string, limit: number, startAfter: string | undefined): Read<readonly KeyValue[]> {
    const keys = this.#keysInOrder();
    const value: KeyValue[] = [];
    const from = startAfter !== undefined && compareKeys(startAfter, prefix) >= 0 ? startAfter : undefined;
    for (let i = firstIndex(keys, from ?? prefix, from !== undefined); i < keys.length && value.length < limit; i++) {
      const key = keys[i] ?? '';
      if (!key.startsWith(prefix)) break;
      const kv = toKeyValue(this.#entries.get(key));
      if (kv !== null) value.push(kv);
    }
    return { value, revision: this.#revision };
  }

  txn({ compare, writes }: Transaction): TransactionResult {
    if (this.#fileBytes + bytesOf(writes) > this.#quotaBytes) this.#full = true;
    if (this.#full && writes.some(({ kind }) => kind === 'put')) throw storeFull();
    if (!compare.every((condition) => this.#holds(condition))) return { succeeded: false, revision: this.#revision };
    for (const write of writes) {
      if (write.kind === 'put' && write.lease !== undefined && !this.#leases.has(write.lease)) {
        throw leaseGone(`write ${write.key}`);
      }
    }
    this.#apply(writes);
    return { succeeded: true, revision: this.#revision };
  }

  grantLease(ttlMs: number): LeaseId {
    if (this.#full) throw storeFull();
    this.#logLength++;
    const id = String(this.#nextLease++) as LeaseId;
    this.#leases.set(id, { ttlMs, keys: new Set(), timer: this.#expiryTimer(id, ttlMs) });
    return id;
  }

  renewLease(id: LeaseId): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) throw leaseGone('renew a lease');
    lease.timer[Symbol.dispose]();
    lease.timer = this.#expiryTimer(id, lease.ttlMs);
  }

  /** Also lets a test end a lease behind its holder's back. Revoking a lease that is gone is a success. */
  revokeLease(id: LeaseId): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    lease.timer[Symbol.dispose]();
    this.#leases.delete(id);
    this.#apply([...lease.keys].sort(compareKeys).map((key) => ({ kind: 'delete', key })));
  }

  /** Forgets the history up to `revision`; watches from before it get 'compacted'. */
  compact(revision: Revision = this.#revision): void {
    assert(revision <= this.#revision, `cannot compact future revision ${revision}`);
    if (revision <= this.#compacted) return;
    this.#compacted = revision;
    this.#history = this.#history.filter((change) => change.revision > revision);
    this.#inUseBytes = this.#bytesKept();
    this.#notify();
  }

  /** Everything below `prefix` after `after`; the events of a revision are never split. */
  changesSince(prefix: string, after: Revision): Changes {
    if (after < this.#compacted) return { kind: 'compacted' };
    const events: WatchEvent[] = [];
    for (let i = this.#historyIndexAfter(after); i < this.#history.length; i++) {
      for (const event of this.#history[i]?.events ?? []) {
        if ((event.kind === 'put' ? event.kv.key : event.key).startsWith(prefix)) events.push(event);
      }
    }
    return { kind: 'changes', revision: this.#revision > after ? this.#revision : after, events };
  }

  /** `wake` runs after every change, until disposed. It must not throw and only schedule work. */
  onChange(wake: () => void): Disposable {
    this.#watchers.add(wake);
    return { [Symbol.dispose]: () => this.#watchers.delete(wake) };
  }

  /** The newest value of each key, and what is still remembered of older ones. */
  #bytesKept(): number {
    let sum = 0;
    for (const { key, value } of this.#entries.values()) sum += bytesOf([{ kind: 'put', key, value }]);
    for (const { events } of this.#history) {
      for (const event of events) {
        if (event.kind === 'delete') sum += bytesOf([event]);
        else if (this.#entries.get(event.kv.key)?.modRevision !== event.kv.modRevision)
          sum += bytesOf([{ kind: 'put', key: event.kv.key, value: event.kv.value }]);
      }
    }
    return sum;
  }

  #holds(condition: Compare): boolean {
    const entry = this.#entries.get(condition.key);
    const actual = condition.target === 'mod' ? entry?.modRevision : entry?.createRevision;
    return (actual ?? 0n) === condition.revision;
  }

  /** One revision for all writes that change something; none when nothing changes. */
  #apply(writes: readonly Write[]): void {
    const effective = writes.filter((write) => write.kind === 'put' || this.#entries.has(write.key));
    this.#logLength++;
    if (effective.length === 0) return;
    this.#revision = (this.#revision + 1n) as Revision;
    const events = effective.map((write) => (write.kind === 'put' ? this.#put(write) : this.#delete(write.key)));
    this.#history.push({ revision: this.#revision, events });
    this.#inUseBytes += bytesOf(effective);
    this.#fileBytes = Math.max(this.#fileBytes, this.#inUseBytes);
    const surplus = this.#history[this.#history.length - 1 - this.#keepRevisions];
    if (surplus !== undefined && this.#history.length > this.#keepRevisions * 1.25) this.compact(surplus.revision);
    this.#notify();
  }

  #put(write: Write & { kind: 'put' }): WatchEvent {
    const before = this.#entries.get(write.key);
    if (before?.lease !== undefined) this.#leases.get(before.lease)?.keys.delete(write.key);
    if (before === undefined) this.#sortedKeys = null;
    const entry: Entry = {
      key: write.key,
      value: write.value,
      createRevision: before?.createRevision ?? this.#revision,
      modRevision: this.#revision,
      lease: write.lease,
    };
    this.#entries.set(write.key, entry);
    if (write.lease !== undefined) this.#leases.get(write.lease)?.keys.add(write.key);
    const { lease: _, ...kv } = entry;
    return { kind: 'put', kv };
  }

  #delete(key: string): WatchEvent {
    const before = this.#entries.get(key);
    if (before?.lease !== undefined) this.#leases.get(before.lease)?.keys.delete(key);
    this.#entries.delete(key);
    this.#sortedKeys = null;
    return { kind: 'delete', key, modRevision: this.#revision };
  }

  #expiryTimer(id: LeaseId, ttlMs: number): Disposable {
    if (!this.#quorum) return { [Symbol.dispose]() {} };
    return this.#clock.timer(ttlMs + this.#leaseExpiryLagMs, () => this.revokeLease(id));
  }

  #notify(): void {
    for (const wake of [...this.#watchers]) wake();
  }

  #keysInOrder(): readonly string[] {
    this.#sortedKeys ??= [...this.#entries.keys()].sort(compareKeys);
    return this.#sortedKeys;
  }

  #historyIndexAfter(after: Revision): number {
    let low = 0;
    let high = this.#history.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#history[middle]?.revision ?? 0n) > after) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function bytesOf(writes: readonly Write[]): number {
  const sizes = writes.map((write) => write.key.length + (write.kind === 'put' ? write.value.length : 0));
  return sizes.reduce((sum, size) => sum + size + REVISION_BYTES, 0);
}

function toKeyValue(entry: Entry | undefined): KeyValue | null {
  if (entry === undefined) return null;
  const { lease: _, ...kv } = entry;
  return kv;
}

/** Index of the first key >= bound, or > bound when `exclusive`. */
function firstIndex(keys: readonly string[], bound: string, exclusive: boolean): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const order = compareKeys(keys[middle] ?? '', bound);
    if (order > 0 || (order === 0 && !exclusive)) high = middle;
    else low = middle + 1;
  }
  return low;
}
