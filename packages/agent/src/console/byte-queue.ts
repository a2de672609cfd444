// SPDX-License-Identifier: Apache-2.0

/**
 * Bytes on their way to one reader, at most `limitBytes` of them. The writer never waits: a queue
 * that would overflow refuses, and its owner drops the reader. One reader at a time.
 */
export class ByteQueue implements AsyncIterable<Uint8Array> {
  readonly #limitBytes: number;
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #ended = false;
  #error: Error | null = null;
  #wake: (() => void) | null = null;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** False when the chunk does not fit; nothing was taken then. */
  push(chunk: Uint8Array): boolean {
    if (this.#ended || chunk.length === 0) return true;
    if (this.#bytes + chunk.length > this.#limitBytes) return false;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    this.#wake?.();
    return true;
  }

  /** The reader gets what is queued, then the end. With an error it gets only that: it missed bytes. */
  end(error: Error | null = null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    if (error !== null) this.#chunks = [];
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, void> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#bytes -= chunk.length;
        yield chunk;
        continue;
      }
      if (this.#error !== null) throw this.#error;
      if (this.#ended) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = null;
    }
  }
}
