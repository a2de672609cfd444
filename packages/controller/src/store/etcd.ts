// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Revision } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import type { TlsFeed } from '@busbar/pki/tls/source';
import { BatchQueue } from './batch-queue.ts';
import type {
  ClusterStore,
  KeyValue,
  LeaseId,
  Read,
  StoreHistory,
  StoreLease,
  StoreUsage,
  Transaction,
  TransactionResult,
  WatchBatch,
} from './cluster-store.ts';
import { outcomeUnknown, storeClosed, storeUnavailable } from './errors.ts';
import { type Answered, Caller, type CallOptions, toStoreError } from './etcd/call.ts';
import { CallFailure, mayRepeat } from './etcd/failure.ts';
import { EtcdLease } from './etcd/lease.ts';
import type { Cancellable, Member } from './etcd/member.ts';
import {
  COMPACT,
  CompareTarget,
  type KeyValue as EtcdKeyValue,
  LEASE_GRANT,
  prefixRange,
  RANGE,
  type RangeResponse,
  STATUS,
  TXN,
} from './etcd/messages.ts';
import { MemberPool } from './etcd/pool.ts';
import { WatchSession } from './etcd/watch.ts';
import { LeaseClaim } from './lease-claim.ts';
import { checkKey, checkLeaseTtl, checkPrefix, checkTransaction, compareKeys } from './request.ts';

export interface EtcdStoreOptions {
  /** `host:port` of every member's client address; the first is preferred (the one on this host). */
  readonly members: readonly [string, ...string[]];
  /** Etcd's authority and this controller's client certificate. null: plain text, for tests. */
  readonly tls: TlsFeed | null;
  readonly clock: Clock;
  readonly log: Logger;
  /** Below the 4 s within which an API call without quorum is to be refused. */
  readonly callDeadlineMs?: number;
  readonly maxBufferedEvents?: number;
}

const CALL_DEADLINE_MS = 3_500;
/** A member answers this from memory. */
const USAGE_DEADLINE_MS = 2_000;
const MAX_BUFFERED_EVENTS = 10_000;
/** Small records: far below the 4 MiB that gRPC accepts as one answer. Larger ones make the page shrink. */
const PAGE_ITEMS = 512;
const LIST_RESTARTS = 3;

/**
 * The cluster store on etcd, over etcd's own gRPC API. Not on the etcd3 package: that has no
 * deadlines, fires "lease lost" after twice the TTL, and dies silently when a watch is compacted.
 */
export class EtcdStore implements ClusterStore {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #callDeadlineMs: number;
  readonly #maxBufferedEvents: number;
  readonly #pool: MemberPool;
  readonly #caller: Caller<Member>;
  readonly #closing = new AbortController();

  constructor(options: EtcdStoreOptions) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#callDeadlineMs = options.callDeadlineMs ?? CALL_DEADLINE_MS;
    this.#maxBufferedEvents = options.maxBufferedEvents ?? MAX_BUFFERED_EVENTS;
    this.#pool = new MemberPool(options.members, options.tls, options.clock, options.log);
    this.#caller = new Caller(this.#pool, options.clock, this.#closing.signal);
  }

  async get(key: string): Promise<Read<KeyValue | null>> {
    checkKey(key);
    const { value } = await this.#call(`get ${key}`, 'read', (member) =>
      member.unary(RANGE, { key: Buffer.from(key) }),
    );
    const kv = value.kvs[0];
    return { value: kv === undefined ? null : toKeyValue(kv), revision: revisionOf(value) };
  }

  async list(
    prefix: string,
    options: { readonly limit?: number; readonly startAfter?: string } = {},
  ): Promise<Read<readonly KeyValue[]>> {
    checkPrefix(prefix);
    const endMs = this.#clock.nowMs() + this.#callDeadlineMs;
    for (let restarts = 0; ; restarts++) {
      try {
        return await this.#listOnce(prefix, options.limit ?? Number.POSITIVE_INFINITY, options.startAfter, endMs);
      } catch (error) {
        // The revision of the first page was compacted before the last one: begin at a newer revision.
        if (!(error instanceof CallFailure) || error.kind !== 'compacted' || restarts >= LIST_RESTARTS) {
          throw toStoreError(`list ${prefix}`, error);
        }
      }
    }
  }

  async txn(transaction: Transaction): Promise<TransactionResult> {
    checkTransaction(transaction);
    const request = {
      compare: transaction.compare.map(({ target, key, revision }) =>
        target === 'mod'
          ? { target: CompareTarget.mod, key, modRevision: revision }
          : { target: CompareTarget.create, key, createRevision: revision },
      ),
      success: transaction.writes.map((write) =>
        write.kind === 'delete'
          ? { deleteRange: { key: write.key } }
          : { put: { key: write.key, value: write.value, lease: BigInt(write.lease ?? 0) } },
      ),
    };
    const what = `write ${transaction.writes.map(({ key }) => key).join(', ')}`;
    const kind = transaction.writes.length === 0 ? 'read' : mayRepeat(transaction) ? 'repeatable write' : 'write';
    const { value, repeated } = await this.#call(what, kind, (member) => member.unary(TXN, request));
    // The comparison may have failed because of the first sending.
    if (repeated && kind !== 'read' && !value.succeeded) throw outcomeUnknown(what);
    return { succeeded: value.succeeded, revision: revisionOf(value) };
  }

  async *watch(prefix: string, after: Revision, signal: AbortSignal): AsyncGenerator<WatchBatch, void> {
    checkPrefix(prefix);
    if (this.#closing.signal.aborted) throw storeClosed();
    const queue = new BatchQueue(this.#maxBufferedEvents);
    const done = new AbortController();
    const onAbort = () => queue.abort();
    const onClosing = () => queue.fail(storeClosed());
    signal.addEventListener('abort', onAbort, { once: true });
    this.#closing.signal.addEventListener('abort', onClosing, { once: true });
    if (signal.aborted) queue.abort();
    const running = new WatchSession({
      pool: this.#pool,
      clock: this.#clock,
      log: this.#log,
      prefix,
      after,
      queue,
      signal: done.signal,
    }).run();
    try {
      yield* queue.drain();
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#closing.signal.removeEventListener('abort', onClosing);
      queue.abort();
      done.abort(storeClosed());
      await running;
    }
  }

  async grantLease(ttlMs: number): Promise<StoreLease> {
    checkLeaseTtl(ttlMs);
    // Granting twice does no harm: the lease that nobody knows has no keys, and expires.
    const { value, sentMs } = await this.#call('grant a lease', 'repeatable write', (member) =>
      member.unary(LEASE_GRANT, { ttlSeconds: BigInt(ttlMs / 1_000) }),
    );
    // etcd may give a longer TTL than asked for; relying on less is always safe.
    const claim = new LeaseClaim(Math.min(ttlMs, Number(value.ttlSeconds) * 1_000));
    claim.acknowledge(sentMs);
    const call = <T>(what: string, kind: CallOptions['kind'], start: (member: Member) => Cancellable<T>) =>
      this.#call(what, kind, start);
    return new EtcdLease(String(value.id) as LeaseId, ttlMs, claim, call);
  }

  async history(): Promise<StoreHistory> {
    const { value } = await this.#call('ask for the history', 'read', (member) => member.unary(STATUS, {}));
    const clusterId = (value.header?.clusterId ?? 0n).toString(16);
    return { clusterId, logLength: value.raftIndex, revision: revisionOf(value) };
  }

  async usage(): Promise<StoreUsage> {
    const statuses = await this.#pool.statuses(USAGE_DEADLINE_MS);
    if (statuses.length === 0) throw storeUnavailable('ask the etcd members how full they are');
    return {
      fileBytes: Math.max(...statuses.map(({ dbSize }) => Number(dbSize))),
      inUseBytes: Math.max(...statuses.map(({ dbSizeInUse }) => Number(dbSizeInUse))),
    };
  }

  async compact(revision: Revision): Promise<void> {
    const what = `compact up to revision ${revision}`;
    const start = (member: Member) => member.unary(COMPACT, { revision });
    try {
      await this.#caller.call({ what, kind: 'repeatable write', deadlineMs: this.#callDeadlineMs }, start);
    } catch (error) {
      // Somebody has been there before: etcd itself, or the call whose answer was lost.
      if (!(error instanceof CallFailure) || error.kind !== 'compacted') throw toStoreError(what, error);
    }
  }

  async ping(deadlineMs: number): Promise<void> {
    await this.#call('ping', 'read', (member) => member.unary(RANGE, { key: Buffer.from('busbar/ping') }), deadlineMs);
  }

  async close(): Promise<void> {
    this.#closing.abort(storeClosed());
    this.#pool.close();
  }

  async #listOnce(
    prefix: string,
    limit: number,
    startAfter: string | undefined,
    endMs: number,
  ): Promise<Read<readonly KeyValue[]>> {
    const range = prefixRange(prefix);
    const items: KeyValue[] = [];
    let key = range.key;
    if (startAfter !== undefined && compareKeys(startAfter, prefix) >= 0) {
      // Behind the end of the range nothing follows, but the revision is still asked for.
      if (!startAfter.startsWith(prefix)) limit = 0;
      else key = Buffer.from(`${startAfter}\0`);
    }
    let revision = 0n as Revision;
    let pageItems = PAGE_ITEMS;
    for (;;) {
      const wanted = Math.max(1, Math.min(pageItems, limit - items.length));
      let page: RangeResponse;
      try {
        const request = { key, rangeEnd: range.rangeEnd, limit: BigInt(wanted), revision };
        const start = (member: Member) => member.unary(RANGE, request);
        page = (
          await this.#caller.call(
            { what: `list ${prefix}`, kind: 'read', deadlineMs: endMs - this.#clock.nowMs() },
            start,
          )
        ).value;
      } catch (error) {
        if (!(error instanceof CallFailure) || error.kind !== 'answer-too-large' || wanted === 1) throw error;
        pageItems = Math.ceil(wanted / 4);
        continue;
      }
      if (revision === 0n) revision = revisionOf(page);
      if (limit === 0) return { value: [], revision };
      items.push(...page.kvs.map(toKeyValue));
      const last = items.at(-1);
      if (!page.more || items.length >= limit || last === undefined) return { value: items, revision };
      key = Buffer.from(`${last.key}\0`);
    }
  }

  async #call<T>(
    what: string,
    kind: CallOptions['kind'],
    start: (member: Member) => Cancellable<T>,
    deadlineMs = this.#callDeadlineMs,
  ): Promise<Answered<T>> {
    try {
      return await this.#caller.call({ what, kind, deadlineMs }, start);
    } catch (error) {
      throw toStoreError(what, error);
    }
  }
}

function toKeyValue(kv: EtcdKeyValue): KeyValue {
  return {
    key: kv.key,
    value: kv.value,
    createRevision: kv.createRevision as Revision,
    modRevision: kv.modRevision as Revision,
  };
}

function revisionOf(response: { readonly header: { readonly revision: bigint } | undefined }): Revision {
  const revision = response.header?.revision;
  if (revision === undefined) throw storeUnavailable('etcd answered without a revision');
  return revision as Revision;
}
