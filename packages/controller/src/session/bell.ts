// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';

/** The leader looks at the whole cluster when it is rung for: no host may have that more often. */
const RING_EVERY_MS = 100;

/** Rings its listeners for a host at once, and then at most every 100 ms: what comes in between is one ring at the end. */
export class Bell {
  readonly #clock: Clock;
  readonly #listeners = new Set<() => void>();
  /** Hosts that were rung for within the last 100 ms, and whether they shall be again. */
  readonly #resting = new Map<string, { again: boolean }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  onRing(listener: () => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  ring(host: string): void {
    const resting = this.#resting.get(host);
    if (resting !== undefined) {
      resting.again = true;
      return;
    }
    const rest = { again: false };
    this.#resting.set(host, rest);
    this.#clock.timer(RING_EVERY_MS, () => {
      this.#resting.delete(host);
      if (rest.again) this.ring(host);
    });
    for (const listener of [...this.#listeners]) listener();
  }
}
