// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';

/**
 * One direction of a byte stream inside the controller, with back-pressure: `push` resolves when the
 * reader has taken what came before, so a slow reader slows the writer and holds one chunk of memory.
 */
export class ByteChannel {
  #chunk: Uint8Array | null = null;
  #taken = () => {};
  #arrived = () => {};
  #ended = false;
  #error: Error | null = null;
  #close = () => {};
  /** Resolves when either side has ended the stream. */
  readonly closed: Promise<void> = new Promise((resolve) => {
    this.#close = resolve;
  });

  async push(chunk: Uint8Array): Promise<void> {
    while (this.#chunk !== null && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#taken = resolve;
      });
    }
    if (this.#ended)
      throw new BusbarError({ kind: 'cancelled', reason: 'STREAM_CLOSED', message: 'the stream is closed' });
    this.#chunk = chunk;
    this.#arrived();
  }

  end(error: Error | null = null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#arrived();
    this.#taken();
    this.#close();
  }

  async *read(): AsyncIterable<Uint8Array> {
    try {
      for (;;) {
        if (this.#chunk !== null) {
          const chunk = this.#chunk;
          this.#chunk = null;
          this.#taken();
          yield chunk;
        } else if (this.#ended) {
          if (this.#error !== null) throw this.#error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#arrived = resolve;
          });
        }
      }
    } finally {
      this.end();
    }
  }
}
