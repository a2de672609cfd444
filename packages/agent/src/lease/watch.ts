// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Lease } from './lease.ts';

/** Tells when the lease is gained and when it ends, by a timer that follows the expiry as it moves on. */
export class LeaseWatch {
  readonly #clock: Clock;
  readonly #lease: Lease;
  readonly #onChange: (held: boolean) => void;
  #held = false;
  #timer: Disposable | undefined;

  constructor(clock: Clock, lease: Lease, onChange: (held: boolean) => void) {
    this.#clock = clock;
    this.#lease = lease;
    this.#onChange = onChange;
  }

  /** The truth at this instant, whether or not the timer has fired yet. */
  remainingMs(): number {
    return Math.max(0, this.#lease.expiresAtMs() - this.#clock.nowMs());
  }

  /** To be called after every acknowledgement. */
  check(): void {
    const remainingMs = this.remainingMs();
    const held = remainingMs > 0;
    // The running timer asks again when it fires, so moving it with each acknowledgement is needless.
    if (held && this.#timer === undefined) {
      this.#timer = this.#clock.timer(remainingMs, () => {
        this.#timer = undefined;
        this.check();
      });
    }
    if (held === this.#held) return;
    this.#held = held;
    this.#onChange(held);
  }

  stop(): void {
    this.#timer?.[Symbol.dispose]();
  }
}
