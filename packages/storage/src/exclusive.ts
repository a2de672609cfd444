// SPDX-License-Identifier: Apache-2.0
import { storageError } from './errors.ts';

/**
 * One change of an image or volume at a time in this process. Without it the repeat of a call would take
 * the first one's unfinished work for the remains of a crash. Between processes nothing sees to that: a
 * leader of yesterday that stood still may go on with its step beside the leader of today, so drivers
 * let only atomic steps (a rename that refuses a taken name) make or take away what has a final name.
 */
export class Exclusive {
  readonly #held = new Set<string>();
  readonly #last = new Map<string, Promise<unknown>>();

  /** Runs after what was queued before under that name: for steps that take seconds. */
  async inTurn<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(name);
    const mine = (async () => {
      await before?.catch(() => {});
      return await work();
    })();
    this.#last.set(name, mine);
    try {
      return await mine;
    } finally {
      if (this.#last.get(name) === mine) this.#last.delete(name);
    }
  }

  /** Refuses a second one at once: an import may take an hour. */
  async run<T>(name: string, work: () => Promise<T>): Promise<T> {
    if (this.#held.has(name)) throw storageError('imageBusy', `${name} is being imported or deleted right now`);
    this.#held.add(name);
    try {
      return await work();
    } finally {
      this.#held.delete(name);
    }
  }
}
