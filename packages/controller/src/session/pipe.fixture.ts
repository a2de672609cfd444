// SPDX-License-Identifier: Apache-2.0

/** One direction of a stream, by hand. */
export class Pipe<T> implements AsyncIterable<T> {
  readonly #queue: T[] = [];
  #ended = false;
  #failure: Error | null = null;
  #wake = () => {};
  released = false;

  send(...items: T[]): void {
    this.#queue.push(...items);
    this.#wake();
  }
  end(failure: Error | null = null): void {
    this.#ended = true;
    this.#failure = failure;
    this.#wake();
  }
  get waiting(): number {
    return this.#queue.length;
  }
  [Symbol.asyncIterator](): AsyncIterator<T> {
    return {
      next: async () => {
        for (;;) {
          const value = this.#queue.shift();
          if (value !== undefined) return { value, done: false };
          if (this.#failure !== null) throw this.#failure;
          if (this.#ended) return { value: undefined, done: true };
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      },
      return: async () => {
        this.released = true;
        this.end();
        return { value: undefined, done: true };
      },
    };
  }
}
