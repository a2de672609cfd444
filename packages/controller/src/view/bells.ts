// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';

/**
 * Wakes the watchers of the view, hundreds of them, a few at a time: between two turns what was written goes out, and the
 * first watcher's client works while the last one's message is made. A change of the view that comes before the last
 * turn begins another pass; whoever still waits for this one is then shown the newer state, once.
 */
export class Bells {
  readonly #ringers = new Set<() => void>();
  readonly #clock: Clock;
  #line: (() => void)[] = [];
  #again = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(ringer: () => void): Disposable {
    // Of its own, so that one that was added twice is two.
    const own = () => ringer();
    this.#ringers.add(own);
    return { [Symbol.dispose]: () => this.#ringers.delete(own) };
  }

  ring(): void {
    if (this.#line.length > 0) {
      this.#again = true;
      return;
    }
    this.#line = [...this.#ringers];
    this.#turn();
  }

  #turn(): void {
    for (const ringer of this.#line.splice(0, AT_ONCE)) if (this.#ringers.has(ringer)) ringer();
    if (this.#line.length > 0) void this.#clock.turn().then(() => this.#turn());
    else if (this.#again) {
      this.#again = false;
      void this.#clock.turn().then(() => this.ring());
    }
  }
}

/** 1 to 2 ms of work: little beside the way over a network, much beside the cost of a turn. */
const AT_ONCE = 100;
