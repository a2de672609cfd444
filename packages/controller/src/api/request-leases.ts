// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { ClusterStore, LeaseId } from '../store/cluster-store.ts';

/** Answers to request ids are kept for an hour: longer than any automation retries one call. */
const KEEP_MS = 3_600_000;
/** One store lease serves all requests of this span, so that a busy API does not make thousands of leases. */
const SHARE_MS = 600_000;

/** The store lease under which request records die by themselves. */
export class RequestLeases {
  readonly #store: ClusterStore;
  readonly #clock: Clock;
  #current: { readonly untilMs: number; readonly id: Promise<LeaseId> } | null = null;

  constructor(store: ClusterStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  current(): Promise<LeaseId> {
    const now = this.#clock.nowMs();
    if (this.#current === null || now >= this.#current.untilMs) {
      const id = this.#store.grantLease(KEEP_MS + SHARE_MS).then(
        (lease) => lease.id,
        (cause: unknown) => {
          if (this.#current?.id === id) this.#current = null;
          if (cause instanceof BusbarError && cause.reason === 'STORE_FULL') throw cause;
          // Whatever became of the lease, nothing of the request was written: not "outcome unknown".
          throw new BusbarError({
            kind: 'unavailable',
            reason: 'STORE_UNAVAILABLE',
            message: 'the cluster store did not take note of the request id; nothing was changed',
            hint: 'send it again',
            cause,
          });
        },
      );
      this.#current = { untilMs: now + SHARE_MS, id };
    }
    return this.#current.id;
  }

  /** The store does not know the present lease any more. */
  renew(): void {
    this.#current = null;
  }
}
