// SPDX-License-Identifier: Apache-2.0
/** Share of the TTL given up because two monotonic clocks run at slightly different rates (design: leases). */
export const LEASE_CLOCK_MARGIN = 0.1;

/**
 * How long the holder of a store lease may rely on it. The store counts the TTL from the moment at
 * which it *handled* a renewal, which is later than the moment at which the renewal was sent: so
 * counting from the sending is always on the safe side, however long the answer took.
 */
export class LeaseClaim {
  readonly #ttlMs: number;
  #validUntilMs = Number.NEGATIVE_INFINITY;
  #over = false;

  constructor(ttlMs: number) {
    this.#ttlMs = ttlMs;
  }

  /** A grant or renewal that was sent at `sentAtMs` has been acknowledged; order of arrival does not matter. */
  acknowledge(sentAtMs: number): void {
    this.#validUntilMs = Math.max(this.#validUntilMs, sentAtMs + this.#ttlMs * (1 - LEASE_CLOCK_MARGIN));
  }

  /** The lease is gone, or is about to be revoked: never valid again, whatever answer still arrives. */
  end(): void {
    this.#over = true;
  }

  validUntilMs(): number {
    return this.#over ? Number.NEGATIVE_INFINITY : this.#validUntilMs;
  }
}
