// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import type { Clock } from '@busbar/core/clock/clock';
import type { ImportRequest } from '../driver.ts';
import { storageError } from '../errors.ts';
import { Pace } from './pace.ts';

export function cancelled(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  const why = reason instanceof Error ? `: ${reason.message}` : '';
  return storageError('importCancelled', `the import was cancelled${why}`, { cause: reason });
}

/**
 * Reads the stream of an import, and after its last chunk checks that it was whole.
 * Ends with an error on abort and when the sender falls silent or sends next to nothing, also while it sends nothing.
 */
export class Receiver {
  readonly #request: ImportRequest;
  readonly #clock: Clock;
  readonly #idleMs: number;
  readonly #hash = createHash('sha256');
  readonly #pace = new Pace();
  #received = 0n;
  #sha256 = '';

  constructor(request: ImportRequest, clock: Clock, idleMs: number) {
    this.#request = request;
    this.#clock = clock;
    this.#idleMs = idleMs;
  }

  /** Valid after the last chunk. */
  get sha256(): string {
    return this.#sha256;
  }

  async *chunks(): AsyncGenerator<{ readonly offset: number; readonly data: Uint8Array }> {
    const { sizeBytes, source } = this.#request;
    const iterator = source[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = await this.#next(iterator);
        if (next.done === true) break;
        const data = next.value;
        const offset = this.#received;
        this.#pace.received(data.length);
        this.#received += BigInt(data.length);
        if (this.#received > sizeBytes) {
          throw storageError('imageInvalid', `the stream is longer than the ${sizeBytes} bytes that were announced`);
        }
        this.#hash.update(data);
        yield { offset: Number(offset), data };
        this.#request.onProgress?.({ phase: 'receive', doneBytes: this.#received });
      }
    } finally {
      // Not awaited: a source that never answers would keep us.
      Promise.resolve(iterator.return?.()).catch(() => {});
    }
    this.#check();
  }

  #check(): void {
    const { sizeBytes, sha256 } = this.#request;
    if (this.#received < sizeBytes) {
      const message = `the stream is truncated: ${this.#received} of ${sizeBytes} bytes arrived`;
      throw storageError('imageInvalid', message, { hint: 'send the image again' });
    }
    this.#sha256 = this.#hash.digest('hex');
    if (sha256 !== null && sha256 !== this.#sha256) {
      throw storageError('imageChecksum', `the stream has the SHA-256 ${this.#sha256}, but ${sha256} was announced`, {
        hint: 'the file was damaged on its way, or the checksum is of another file',
      });
    }
  }

  #next(iterator: AsyncIterator<Uint8Array>): Promise<IteratorResult<Uint8Array>> {
    const { signal } = this.#request;
    return new Promise((resolve, reject) => {
      const settle = () => {
        timer?.[Symbol.dispose]();
        signal.removeEventListener('abort', onAbort);
      };
      const onAbort = () => {
        settle();
        reject(cancelled(signal));
      };
      const fail = (error: unknown) => {
        settle();
        reject(error as Error);
      };
      let countedMs = this.#clock.nowMs();
      const silentAtMs = countedMs + this.#idleMs;
      /** Counts the time since the last count; false when the sender is judged too slow. */
      const isInTime = (): boolean => {
        const nowMs = this.#clock.nowMs();
        try {
          this.#pace.waited(nowMs - countedMs);
        } catch (error) {
          fail(error);
          return false;
        }
        countedMs = nowMs;
        return true;
      };
      const watch = (): Disposable =>
        this.#clock.timer(Math.min(silentAtMs - countedMs, this.#pace.leftMs()), () => {
          if (!isInTime()) return;
          if (countedMs < silentAtMs) timer = watch();
          else fail(storageError('importCancelled', `the sender sent nothing for ${this.#idleMs} ms`));
        });
      let timer: Disposable | undefined;
      if (signal.aborted) return onAbort();
      timer = watch();
      signal.addEventListener('abort', onAbort, { once: true });
      iterator.next().then(
        (value) => {
          if (!isInTime()) return;
          settle();
          resolve(value);
        },
        (cause: unknown) => fail(storageError('importCancelled', 'the stream broke off', { cause })),
      );
    });
  }
}
