// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';

/**
 * Wakes the watchers of the view, hundreds of them, a few at a time: between two turns what was written goes out, and the
 * first watcher's client works while the last one's message is made. Those that share a connection are woken one after
 * the other, so that their messages share packets and reads. A change of the view that comes before the last
 * turn begins another pass; whoever still waits for this one is then shown the newer state, once.
 */
export class Bells {
  readonly #ringers = new Map<string, Set<() => void>>();
  readonly #clock: Clock;
  #line: { readonly ringer: () => void; readonly of: ReadonlySet<() => void> }[] = [];
  #again = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(connection: string, ringer: () => void): Disposable {
    // Of its own, so that one that was added twice is two.
    const own = () => ringer();
    const neighbours = this.#ringers.get(connection) ?? new Set();
    this.#ringers.set(connection, neighbours.add(own));
    return {
      [Symbol.dispose]: () => {
        neighbours.delete(own);
        if (neighbours.size === 0 && this.#ringers.get(connection) === neighbours) this.#ringers.delete(connection);
      },
    };
  }

  ring(): void {
    if (this.#line.length > 0) {
      this.#again = true;
      return;
    }
    this.#line = [...this.#ringers.values()].flatMap((of) => [...of].map((ringer) => ({ ringer, of })));
    this.#turn();
  }

  #turn(): void {
    // Who has left meanwhile is not rung for.
    for (const { ringer, of } of this.#line.splice(0, AT_ONCE)) if (of.has(ringer)) ringer();
    if (this.#line.length > 0) void this.#clock.turn().then(() => this.#turn());
    else if (this.#again) {
      this.#again = false;
      void this.#clock.turn().then(() => this.ring());
    }
  }
}

/** 1 to 2 ms of work: little beside the way over a network, much beside the cost of a turn. */
const AT_ONCE = 100;
