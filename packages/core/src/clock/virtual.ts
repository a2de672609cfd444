// SPDX-License-Identifier: Apache-2.0
import type { Clock } from './clock.ts';

interface Pending {
  readonly atMs: number;
  readonly order: number;
  readonly callback: () => void;
}

/** Lets every promise that can settle do so. Only sound while no real I/O or timer is under way. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * Time that moves only when told. Timers that fall due together run in the order in which they
 * were set, and promises settle between two timers, so the same inputs give the same trace.
 */
export class VirtualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  #pending: Pending[] = [];
  #startWallMs: number;

  constructor(startWall = new Date('2030-01-01T00:00:00Z')) {
    this.#startWallMs = startWall.getTime();
  }

  nowMs(): number {
    return this.#nowMs;
  }

  wallTime(): Date {
    return new Date(this.#startWallMs + this.#nowMs);
  }

  /** Sets the wall clock forward or back, as NTP or an operator may. Monotonic time and timers know nothing of it. */
  jumpWall(byMs: number): void {
    this.#startWallMs += byMs;
  }

  timer(delayMs: number, callback: () => void): Disposable {
    const entry: Pending = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, callback };
    this.#pending.push(entry);
    return {
      [Symbol.dispose]: () => {
        const index = this.#pending.indexOf(entry);
        if (index >= 0) this.#pending.splice(index, 1);
      },
    };
  }

  /** In virtual time nothing is written and nothing comes in beside the timers. */
  turn(): Promise<void> {
    return Promise.resolve();
  }

  /** Moves time forward by `durationMs`, running every timer on the way. */
  async advance(durationMs: number): Promise<void> {
    const endMs = this.#nowMs + durationMs;
    await settle();
    for (;;) {
      const next = this.#takeDue(endMs);
      if (next === undefined) break;
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.callback();
      await settle();
    }
    this.#nowMs = endMs;
  }

  /** Advances until `condition` holds; false when `limitMs` of virtual time passed before it did. */
  async advanceUntil(condition: () => boolean, limitMs: number): Promise<boolean> {
    const endMs = this.#nowMs + limitMs;
    await settle();
    while (!condition()) {
      const next = this.#takeDue(endMs);
      if (next === undefined) {
        this.#nowMs = endMs;
        return condition();
      }
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.callback();
      await settle();
    }
    return true;
  }

  #takeDue(endMs: number): Pending | undefined {
    let best: Pending | undefined;
    for (const entry of this.#pending) {
      if (entry.atMs > endMs) continue;
      if (best === undefined || entry.atMs < best.atMs || (entry.atMs === best.atMs && entry.order < best.order)) {
        best = entry;
      }
    }
    if (best !== undefined) this.#pending.splice(this.#pending.indexOf(best), 1);
    return best;
  }
}
