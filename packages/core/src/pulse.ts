// SPDX-License-Identifier: Apache-2.0
import type { Clock } from './clock/clock.ts';

/**
 * Shows that a loop goes round. A process whose event loop turns may still have a loop that hangs on a promise nobody
 * settles; the loop beats its pulse each time round, and whoever asks sees when it stopped.
 */
export class Pulse {
  readonly #clock: Clock;
  #lastMs: number | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  beat(): void {
    this.#lastMs = this.#clock.nowMs();
  }

  /** The loop is not meant to run now. */
  rest(): void {
    this.#lastMs = null;
  }

  /** Milliseconds since it went round; null while it is not meant to. */
  ageMs(): number | null {
    return this.#lastMs === null ? null : this.#clock.nowMs() - this.#lastMs;
  }
}
