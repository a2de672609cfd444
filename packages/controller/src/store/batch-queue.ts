// SPDX-License-Identifier: Apache-2.0
import type { WatchBatch } from './cluster-store.ts';

/** Between the store's stream and the consumer of a watch: bounded, so that a slow consumer cannot eat the memory. */
export class BatchQueue {
  readonly #maxEvents: number;
  #batches: WatchBatch[] = [];
  #events = 0;
  #closed = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(maxEvents: number) {
    this.#maxEvents = maxEvents;
  }

  /** No more batches are taken; what is queued is still delivered, unless aborted. */
  get closed(): boolean {
    return this.#closed;
  }

  push(batch: WatchBatch): void {
    if (this.#closed) return;
    if (batch.kind === 'events') {
      // One batch is always taken: a store that catches up hands over many revisions at once.
      if (this.#events > 0 && this.#events + batch.events.length > this.#maxEvents) {
        // The consumer has to list anyway: what it has not taken yet is of no use.
        this.#batches = [{ kind: 'compacted' }];
        this.#close();
        return;
      }
      this.#events += batch.events.length;
    } else if (batch.kind === 'progress' && this.#batches.at(-1)?.kind === 'progress') {
      this.#batches.pop();
    }
    this.#batches.push(batch);
    if (batch.kind === 'compacted') this.#close();
    else this.#wakeUp();
  }

  /** Ends the watch at once; what the consumer has not taken is dropped. */
  abort(): void {
    this.#batches = [];
    this.#error = undefined;
    this.#close();
  }

  /** Ends the watch with an error, after what is queued. */
  fail(error: Error): void {
    if (!this.#closed) this.#error = error;
    this.#close();
  }

  async *drain(): AsyncGenerator<WatchBatch, void> {
    for (;;) {
      const batch = this.#batches.shift();
      if (batch !== undefined) {
        if (batch.kind === 'events') this.#events -= batch.events.length;
        yield batch;
      } else if (this.#error !== undefined) {
        throw this.#error;
      } else if (this.#closed) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  #close(): void {
    this.#closed = true;
    this.#wakeUp();
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}
