// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { SpoolState, StorageDriver } from '@busbar/storage/driver';
import type { ClusterStore, StoreUsage } from '../store/cluster-store.ts';

/** How full is what everything depends on, as this controller last saw it. */
export interface Fill {
  /** Null while nobody answers: then the store itself refuses, and says so. */
  readonly store: StoreUsage | null;
  /** etcd's `--quota-backend-bytes`, as the configuration says it. */
  readonly quotaBytes: number;
  /** Null where there is none, or while it cannot be read. */
  readonly spool: SpoolState | null;
}

/** etcd's default, and the most that it recommends for a default set-up is four times that. */
export const ETCD_QUOTA_BYTES = 2 * 1024 ** 3;

/** Of a controller that has not looked yet. */
export const UNKNOWN_FILL: Fill = { store: null, quotaBytes: Number.POSITIVE_INFINITY, spool: null };

/** What all controllers may write meanwhile is a few percent of the quota (write-budget.ts). */
const LOOK_EVERY_MS = 5_000;
/** An answer that is older says nothing any more. */
const BELIEVED_MS = 30_000;

export interface FillDeps {
  readonly store: Pick<ClusterStore, 'usage'>;
  readonly storage: Pick<StorageDriver, 'spool'>;
  readonly quotaBytes: number;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class FillWatch {
  readonly #deps: FillDeps;
  #store: { readonly usage: StoreUsage; readonly atMs: number } | null = null;
  #spool: SpoolState | null = null;

  constructor(deps: FillDeps) {
    this.#deps = deps;
  }

  now(): Fill {
    const { clock, quotaBytes } = this.#deps;
    const isFresh = this.#store !== null && clock.nowMs() - this.#store.atMs <= BELIEVED_MS;
    return { store: isFresh ? (this.#store?.usage ?? null) : null, quotaBytes, spool: this.#spool };
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await Promise.all([this.#lookAtStore(), this.#lookAtSpool()]);
      await sleep(this.#deps.clock, LOOK_EVERY_MS, signal).catch(() => {});
    }
  }

  async #lookAtStore(): Promise<void> {
    const { store, clock, logger } = this.#deps;
    try {
      this.#store = { usage: await store.usage(), atMs: clock.nowMs() };
    } catch (error) {
      logger.debug({ err: error }, 'cannot tell how full the cluster store is');
    }
  }

  async #lookAtSpool(): Promise<void> {
    const { storage, logger } = this.#deps;
    try {
      this.#spool = await storage.spool();
    } catch (error) {
      this.#spool = null;
      logger.debug({ err: error }, 'cannot tell how full the disk of the spool directory is');
    }
  }
}
