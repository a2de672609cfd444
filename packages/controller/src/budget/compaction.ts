// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import type { Revision } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import type { ClusterStore, Transaction } from '../store/cluster-store.ts';
import type { Fill } from './fill.ts';
import { type StoreLevel, storeLevel } from './level.ts';

/**
 * Reconciler of the store's history, by the leader: what was written over or deleted is kept only as long as somebody who
 * was cut off may want to go on from there. It owns no record. Two leaders that compact do each other no harm: the older
 * revision is a success that does nothing. Whoever comes later than that lists everything again (view.ts).
 */
const LOOK_EVERY_MS = 5_000;
/** A member that restarts, a cable that is changed. */
const KEEP_MS = 300_000;
/** While the store fills up: longer than a client needs to find another member. */
const KEEP_FILLING_MS = 10_000;
/** Each compaction costs every member a walk through its index; with little to forget it is not worth it. */
const WORTHWHILE_REVISIONS = 1_000n;

export interface Seen {
  readonly atMs: number;
  readonly revision: Revision;
}

/** Up to which revision history is to be forgotten now; null for nothing. Pure. `seen`: oldest first. */
export function planCompaction(
  seen: readonly Seen[],
  compacted: Revision,
  level: StoreLevel,
  nowMs: number,
): Revision | null {
  const keepMs = level === 'free' ? KEEP_MS : KEEP_FILLING_MS;
  const old = seen.findLast(({ atMs }) => atMs <= nowMs - keepMs);
  if (old === undefined) return null;
  const worthwhile = level === 'free' ? WORTHWHILE_REVISIONS : 1n;
  return old.revision - compacted >= worthwhile ? old.revision : null;
}

export interface CompactionDeps {
  readonly store: Pick<ClusterStore, 'compact'>;
  readonly view: { readonly revision: Revision };
  readonly fill: () => Fill;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly leader: {
    readonly signal: AbortSignal;
    txn(transaction: Transaction): Promise<unknown>;
  };
  /** A key whose value says nothing. */
  readonly pulseKey: string;
}

/** Until the leader's signal aborts. */
export async function compactRegularly(deps: CompactionDeps): Promise<void> {
  const { store, view, fill, clock, logger, leader } = deps;
  let seen: Seen[] = [];
  let compacted = 0n as Revision;
  const pulse: Transaction = { compare: [], writes: [{ kind: 'put', key: deps.pulseKey, value: '' }] };
  while (!leader.signal.aborted) {
    const nowMs = clock.nowMs();
    seen = [
      ...seen.filter(({ atMs }) => atMs > nowMs - KEEP_MS - 2 * LOOK_EVERY_MS),
      { atMs: nowMs, revision: view.revision },
    ];
    const usage = fill();
    const level = storeLevel(usage.store, usage.quotaBytes);
    const upTo = planCompaction(seen, compacted, level, nowMs);
    if (upTo !== null) {
      try {
        await store.compact(upTo);
        compacted = upTo;
        logger.debug({ revision: String(upTo), level }, 'compacted the cluster store');
      } catch (error) {
        logger.debug({ err: error }, 'cannot compact the cluster store now; tried again in a moment');
      }
    }
    // etcd forgets in the background, and counts the pages as used until something is written after that. In a store that is
    // nearly full nobody else may be writing.
    if (level !== 'free') await leader.txn(pulse).catch(() => {});
    await sleep(clock, LOOK_EVERY_MS, leader.signal).catch(() => {});
  }
}
