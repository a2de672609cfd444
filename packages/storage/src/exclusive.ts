// SPDX-License-Identifier: Apache-2.0
import { storageError } from './errors.ts';

/**
 * One import, delete or clone-and-delete of an image at a time in this process: a second one is refused
 * at once rather than queued, because an import may take an hour. Between processes the saga that owns
 * the image sees to it.
 */
export class Exclusive {
  readonly #held = new Set<string>();

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
