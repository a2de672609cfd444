// SPDX-License-Identifier: Apache-2.0
import { ByteQueue } from './byte-queue.ts';

/** What one console reader may lag behind: minutes of output at the speed of a serial line. */
export const READER_LIMIT_BYTES = 1024 * 1024;

export interface Reader {
  readonly output: AsyncIterable<Uint8Array>;
  close(): void;
}

/**
 * One source of bytes, many readers, each with all output from its subscription on. A reader that
 * does not keep up is dropped with an error: it must neither hold up the guest nor the others.
 */
export class FanOut {
  readonly #queues = new Set<ByteQueue>();
  readonly #limitBytes: number;
  readonly #tooSlow: () => Error;

  constructor(tooSlow: () => Error, limitBytes = READER_LIMIT_BYTES) {
    this.#tooSlow = tooSlow;
    this.#limitBytes = limitBytes;
  }

  get readers(): number {
    return this.#queues.size;
  }

  /** `onClose` runs once, when the reader leaves by itself (not when it was dropped or the source ended). */
  subscribe(signal: AbortSignal, onClose?: () => void): Reader {
    const queue = new ByteQueue(this.#limitBytes);
    this.#queues.add(queue);
    const close = () => {
      signal.removeEventListener('abort', close);
      queue.end();
      if (this.#queues.delete(queue)) onClose?.();
    };
    if (signal.aborted) close();
    else signal.addEventListener('abort', close, { once: true });
    return { output: queue, close };
  }

  publish(chunk: Uint8Array): void {
    for (const queue of this.#queues) {
      if (queue.push(chunk)) continue;
      this.#queues.delete(queue);
      queue.end(this.#tooSlow());
    }
  }

  end(error: Error | null = null): void {
    const queues = [...this.#queues];
    this.#queues.clear();
    for (const queue of queues) queue.end(error);
  }
}
