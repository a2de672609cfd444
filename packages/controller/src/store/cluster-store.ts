// SPDX-License-Identifier: Apache-2.0
import type { Brand, Revision } from '@busbar/core/ids';

/**
 * The cluster's truth, as Busbar needs it: etcd's model (one global revision, compare-and-write
 * transactions, watch from a revision, leases) without etcd's client. Memory and etcd
 * implementations pass one conformance suite (conformance.ts).
 *
 * Every call has a deadline (default `callDeadlineMs` of the implementation) and rejects with a
 * BusbarError of kind 'unavailable' (nothing was applied and nothing will be) or 'timeout' (a write may or
 * may not have been applied, or may still be: a frozen member carries it out when it thaws). Reads are linearizable.
 */
export interface ClusterStore {
  get(key: string): Promise<Read<KeyValue | null>>;
  /**
   * All keys that start with `prefix` ('' is every key) in the order of their UTF-8 bytes, at one
   * revision. Pages internally; at most `limit` items when given. `startAfter` need not exist.
   */
  list(
    prefix: string,
    options?: { readonly limit?: number; readonly startAfter?: string },
  ): Promise<Read<readonly KeyValue[]>>;
  /** Applied at most once. A put under a lease that is gone rejects with kind 'precondition', reason LEASE_GONE. */
  txn(transaction: Transaction): Promise<TransactionResult>;
  /**
   * Changes below `prefix` with revision > `after`, in order, whole revisions at a time (a batch may hold
   * several; the order inside one is not promised), until `signal` aborts (the iterator then returns) or
   * the store is closed (it throws). Reconnects by itself without gap or repeat. When the store has
   * forgotten what follows `after`, yields 'compacted' once and returns: list again, then watch from there.
   * A slow consumer holds at most `maxBufferedEvents` (implementation's limit), then gets 'compacted' too.
   * Yields 'progress' now and then (etcd: every --experimental-watch-progress-notify-interval), so that a
   * consumer of a quiet prefix knows how far it is.
   */
  watch(prefix: string, after: Revision, signal: AbortSignal): AsyncIterable<WatchBatch>;
  /** A lease with keys attached to it dies `ttlMs` after its last renewal (whole seconds, at least 2 s). */
  grantLease(ttlMs: number): Promise<StoreLease>;
  /** Of any member, as it was at `revision`, which may be a little behind. */
  history(): Promise<StoreHistory>;
  /** How full the store is. Of several members the fullest that answers counts: one that is full stops all. */
  usage(): Promise<StoreUsage>;
  /**
   * Forgets what was before `revision`: watches from before it get 'compacted', and what was written over or deleted
   * makes room. Asked for again, or for an older revision, it is a success. Reaches what is full, too.
   */
  compact(revision: Revision): Promise<void>;
  /** Tells whether a quorum answers: one linearizable read under `deadlineMs`. */
  ping(deadlineMs: number): Promise<void>;
  close(): Promise<void>;
}

/**
 * Which history of the store this is. A store that is restored from a snapshot keeps its revision and begins a new log: each
 * revision is an entry of the log, so revision - logLength never grows while the history is the same.
 */
export interface StoreHistory {
  /** Of the etcd cluster; another one after a restore with a new token. */
  readonly clusterId: string;
  readonly logLength: bigint;
  readonly revision: Revision;
}

export interface StoreUsage {
  /** Size of the database's file: what the quota is compared with. It does not shrink by itself. */
  readonly fileBytes: number;
  /** What of it is in use; the rest is written over before the file grows. */
  readonly inUseBytes: number;
}

export type LeaseId = Brand<string, 'LeaseId'>;

export interface KeyValue {
  readonly key: string;
  readonly value: string;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
}

export interface Read<T> {
  readonly value: T;
  /** The store's revision at which the read was made. */
  readonly revision: Revision;
}

/**
 * All comparisons must hold for `writes` to be applied, atomically and at one revision. At most 128
 * comparisons and 128 writes (etcd's default limits), no key written twice, 768 KiB in all: else 'invalid'.
 */
export interface Transaction {
  readonly compare: readonly Compare[];
  readonly writes: readonly Write[];
}

/** Revision 0n means: the key does not exist. */
export type Compare =
  | { readonly target: 'mod'; readonly key: string; readonly revision: Revision }
  | { readonly target: 'create'; readonly key: string; readonly revision: Revision };

export type Write =
  | { readonly kind: 'put'; readonly key: string; readonly value: string; readonly lease?: LeaseId }
  | { readonly kind: 'delete'; readonly key: string };

export interface TransactionResult {
  readonly succeeded: boolean;
  /**
   * When succeeded: the revision of the write (the store's current one when nothing changed, such as
   * deleting a missing key). Else: the revision at which the comparison failed.
   */
  readonly revision: Revision;
}

export type WatchBatch =
  | { readonly kind: 'events'; readonly revision: Revision; readonly events: readonly WatchEvent[] }
  | { readonly kind: 'progress'; readonly revision: Revision }
  | { readonly kind: 'compacted' };

export type WatchEvent =
  | { readonly kind: 'put'; readonly kv: KeyValue }
  | { readonly kind: 'delete'; readonly key: string; readonly modRevision: Revision };

export interface StoreLease {
  readonly id: LeaseId;
  readonly ttlMs: number;
  /**
   * Renews once. Rejects when the store does not answer (a later answer still counts), and with kind
   * 'precondition', reason LEASE_GONE, when the lease is gone. Renewals may overlap.
   */
  renew(): Promise<void>;
  /**
   * Monotonic time until which the holder may rely on the lease: the instant at which the last
   * acknowledged grant or renewal was *sent*, plus the TTL, less 10 % for clock rate (design: leases).
   * -Infinity once the lease is known to be gone or its revocation has begun.
   */
  validUntilMs(): number;
  /** Ends the lease and deletes its keys. Revoking a lease that is gone is a success. */
  revoke(): Promise<void>;
}
