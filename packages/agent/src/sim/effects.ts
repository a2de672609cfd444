// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import type { Clock } from '@busbar/core/clock/clock';
import type { Random } from '@busbar/core/random';

/** Uniform between both, in milliseconds. */
export type LatencyRange = readonly [minMs: number, maxMs: number];

interface Effect {
  readonly label: string;
  readonly run: () => void;
  timer: Disposable | null;
  due: boolean;
}

/**
 * What a simulated machine will do next. In automatic mode each effect happens after a random
 * latency on the clock; in stepped mode nothing happens until the test picks an effect, in any
 * order. While frozen, effects that fall due wait and happen at the thaw, oldest first.
 */
export class SimEffects {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #mode: 'automatic' | 'stepped';
  #pending: Effect[] = [];
  #frozen = false;

  constructor(clock: Clock, random: Random, mode: 'automatic' | 'stepped') {
    this.#clock = clock;
    this.#random = random;
    this.#mode = mode;
  }

  after(label: string, [minMs, maxMs]: LatencyRange, run: () => void): Disposable {
    const effect: Effect = { label, run, timer: null, due: false };
    this.#pending.push(effect);
    // Drawn in both modes, so that switching modes does not shift what the seed decides elsewhere.
    const delayMs = minMs + this.#random.next() * (maxMs - minMs);
    if (this.#mode === 'automatic') {
      effect.timer = this.#clock.timer(delayMs, () => {
        if (this.#frozen) effect.due = true;
        else this.#run(effect);
      });
    }
    return { [Symbol.dispose]: () => this.#drop(effect) };
  }

  /** Labels of what has not happened yet, oldest first. */
  get pending(): readonly string[] {
    return this.#pending.map((effect) => effect.label);
  }

  /** Makes the oldest effect happen, or the oldest whose label begins with `prefix`; its label, or null when there is none. */
  step(prefix = ''): string | null {
    assert(!this.#frozen, 'a frozen machine does nothing');
    const effect = this.#pending.find(({ label }) => label.startsWith(prefix));
    if (effect === undefined) return null;
    this.#run(effect);
    return effect.label;
  }

  freeze(): void {
    this.#frozen = true;
  }

  thaw(): void {
    this.#frozen = false;
    for (const effect of this.#pending.filter(({ due }) => due)) this.#run(effect);
  }

  /** Nothing of what was pending happens any more. */
  clear(): void {
    for (const effect of [...this.#pending]) this.#drop(effect);
    this.#frozen = false;
  }

  #run(effect: Effect): void {
    if (!this.#pending.includes(effect)) return;
    this.#drop(effect);
    effect.run();
  }

  #drop(effect: Effect): void {
    effect.timer?.[Symbol.dispose]();
    const index = this.#pending.indexOf(effect);
    if (index >= 0) this.#pending.splice(index, 1);
  }
}
