// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import type { Compare, StoreLease } from '../store/cluster-store.ts';

/** One time of being the leader, from winning the key to losing it. A new term has a new object. */
export interface LeaderTerm {
  /** The fencing token: grows with every term. */
  readonly createRevision: Revision;
  /** Belongs into every transaction of the leader: it fails once another term has begun. */
  fence(): Compare;
  /**
   * Whether this controller is certainly still the only leader, by its own monotonic clock. To be asked
   * right before any effect that no transaction guards. Once false, false for ever.
   */
  isValid(): boolean;
  /** Aborts when the term ends. */
  readonly signal: AbortSignal;
}

export class HeldTerm implements LeaderTerm {
  readonly createRevision: Revision;
  readonly lease: StoreLease;
  readonly #key: string;
  readonly #clock: Clock;
  readonly #abort = new AbortController();
  #over = false;
  /** The last renewal; the grant counts as the first. */
  renewalSentMs: number;
  renewal: 'pending' | 'acknowledged' | 'failed' = 'acknowledged';
  lost = false;

  constructor(key: string, createRevision: Revision, lease: StoreLease, grantSentMs: number, clock: Clock) {
    this.#key = key;
    this.createRevision = createRevision;
    this.lease = lease;
    this.renewalSentMs = grantSentMs;
    this.#clock = clock;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  fence(): Compare {
    return { target: 'create', key: this.#key, revision: this.createRevision };
  }

  isValid(): boolean {
    // Latched: a renewal that is acknowledged late must not revive a term somebody saw expired.
    if (this.#clock.nowMs() >= this.lease.validUntilMs()) this.#over = true;
    return !this.#over;
  }

  /** When the lease was last seen to expire; -Infinity once the term is over. */
  validUntilMs(): number {
    return this.#over ? Number.NEGATIVE_INFINITY : this.lease.validUntilMs();
  }

  end(why: string): void {
    this.#over = true;
    this.#abort.abort(
      new BusbarError({ kind: 'cancelled', reason: 'LEADERSHIP_LOST', message: `no longer the leader: ${why}` }),
    );
  }
}
