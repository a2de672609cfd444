// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import { showBytes } from '@busbar/storage/errors';
import type { Transaction } from '../store/cluster-store.ts';

/**
 * How many bytes the callers of this controller may write into the store. etcd keeps every value that was written until it
 * is compacted, so writing over one record fills it as well as making many. Each caller has a bucket, all together have one
 * for what a controller takes in, and a small part is each caller's own, so that no number of others can stop him.
 *
 * The numbers follow from etcd's quota and from the leader's compaction (compaction.ts), which keeps history for 10 s once
 * 35 % of the quota is in use: all controllers together may write a sixth of the quota at once, and as much again every five
 * minutes. From the 35 % that is some 55 % before the next compaction, and the stop is at 70 %. An hour of it, in which
 * request ids live, keeps another sixth at most.
 */
const CLUSTER_SHARE = 1 / 6;
const REFILL_MS = 300_000;
/** Of what its controller takes in: one caller alone must not use up all of it. */
const CALLER_SHARE = 3 / 4;
/** 1.8 MiB at the usual quota and three controllers: hundreds of changes, or a dozen with the largest user data. */
const OWN_SHARE = 1 / 64;
/** A transaction has at most 768 KiB; with tiny quotas one still has to pass. */
const BURST_MIN_BYTES = 1024 ** 2;
/** More identities than a cluster has; beyond it they share one allowance. */
const CALLERS_MAX = 1_000;
/** What etcd and its database add to a key and its value. Measured: 82 KB took 88 KB, 430 bytes took some 300 to 560. */
const WRITE_BYTES = 128;

export function costOf({ writes }: Transaction): number {
  return writes.reduce(
    (sum, write) => sum + WRITE_BYTES + write.key.length + (write.kind === 'put' ? Buffer.byteLength(write.value) : 0),
    0,
  );
}

export class WriteBudget {
  readonly #clock: Clock;
  readonly #burstBytes: number;
  readonly #all: Bucket;
  readonly #callers = new Map<string, { readonly whole: Bucket; readonly own: Bucket }>();

  constructor(clock: Clock, quotaBytes: number, controllers: number) {
    this.#clock = clock;
    this.#burstBytes = Math.max(BURST_MIN_BYTES / CALLER_SHARE, (quotaBytes * CLUSTER_SHARE) / controllers);
    this.#all = new Bucket(this.#burstBytes, clock.nowMs());
  }

  /** Takes what a change costs, or throws WRITE_BUDGET_SPENT. Gives back what was not written in the end. */
  spend(name: string, bytes: number): () => void {
    const nowMs = this.#clock.nowMs();
    const { whole, own } = this.#bucketsOf(name, nowMs);
    if (!whole.has(bytes, nowMs)) {
      throw spent(`"${name}" has used up what one caller may write`, whole, bytes, nowMs, 'send it again');
    }
    const from = this.#all.has(bytes, nowMs) ? this.#all : own;
    if (!from.has(bytes, nowMs)) {
      const instead = 'send it again, or to another controller';
      throw spent('the callers of this controller have used up what it may write', this.#all, bytes, nowMs, instead);
    }
    from.take(bytes);
    whole.take(bytes);
    return () => {
      from.take(-bytes);
      whole.take(-bytes);
    };
  }

  #bucketsOf(name: string, nowMs: number) {
    const key = this.#callers.has(name) || this.#makesRoom(nowMs) ? name : '';
    const known = this.#callers.get(key);
    if (known !== undefined) return known;
    const fresh = {
      whole: new Bucket(this.#burstBytes * CALLER_SHARE, nowMs),
      own: new Bucket(Math.max(BURST_MIN_BYTES, this.#burstBytes * OWN_SHARE), nowMs),
    };
    this.#callers.set(key, fresh);
    return fresh;
  }

  /** Whoever has not written for long is as good as new. */
  #makesRoom(nowMs: number): boolean {
    if (this.#callers.size < CALLERS_MAX) return true;
    for (const [name, { whole, own }] of this.#callers) {
      if (whole.isFull(nowMs) && own.isFull(nowMs)) this.#callers.delete(name);
    }
    return this.#callers.size < CALLERS_MAX;
  }
}

/** A token bucket of bytes that fills within REFILL_MS. */
class Bucket {
  readonly sizeBytes: number;
  #left: number;
  #countedMs: number;

  constructor(sizeBytes: number, nowMs: number) {
    this.sizeBytes = sizeBytes;
    this.#left = sizeBytes;
    this.#countedMs = nowMs;
  }

  has(bytes: number, nowMs: number): boolean {
    this.#left = Math.min(this.sizeBytes, this.#left + this.perMs * (nowMs - this.#countedMs));
    this.#countedMs = nowMs;
    return this.#left >= bytes;
  }

  isFull(nowMs: number): boolean {
    return this.has(this.sizeBytes, nowMs);
  }

  take(bytes: number): void {
    this.#left = Math.min(this.sizeBytes, this.#left - bytes);
  }

  get perMs(): number {
    return this.sizeBytes / REFILL_MS;
  }

  /** Until there are so many. */
  waitMs(bytes: number): number {
    return Math.max(0, bytes - this.#left) / this.perMs;
  }
}

function spent(who: string, bucket: Bucket, bytes: number, nowMs: number, instead: string): BusbarError {
  bucket.has(bytes, nowMs);
  const show = (value: number) => showBytes(BigInt(Math.ceil(value)));
  return new BusbarError({
    kind: 'exhausted',
    reason: 'WRITE_BUDGET_SPENT',
    message:
      `${who} into the cluster store: ${show(bucket.sizeBytes)} at once and ${show(bucket.perMs * 1000)} a second after ` +
      `that; nothing was changed (this change has ${show(bytes)})`,
    hint: `${instead}; there is room in ${Math.ceil(bucket.waitMs(bytes) / 1000)} s`,
  });
}
