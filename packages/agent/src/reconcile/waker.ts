// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';

/** A loop's pause that can be cut short. A wake during the work before the pause is not lost. */
export class Waker {
  readonly #clock: Clock;
  #woken = false;
  #atOnce = false;
  #stopped = false;
  #notify: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  wake(): void {
    this.#woken = true;
    this.#notify?.();
  }

  /** Also within the shortest pause. */
  wakeAtOnce(): void {
    this.#atOnce = true;
    this.wake();
  }

  stop(): void {
    this.#stopped = true;
    this.#notify?.();
  }

  /** Returns after `longestMs`, or earlier when woken, but not before `shortestMs` unless woken at once. */
  async sleep(shortestMs: number, longestMs: number): Promise<void> {
    await this.#pause(shortestMs, () => this.#stopped || this.#atOnce);
    await this.#pause(longestMs - shortestMs, () => this.#stopped || this.#woken);
    this.#woken = false;
    this.#atOnce = false;
  }

  #pause(durationMs: number, over: () => boolean): Promise<void> {
    if (durationMs <= 0 || over()) return Promise.resolve();
    return new Promise((resolve) => {
      const end = () => {
        timer[Symbol.dispose]();
        this.#notify = undefined;
        resolve();
      };
      const timer = this.#clock.timer(durationMs, end);
      this.#notify = () => over() && end();
    });
  }
}
