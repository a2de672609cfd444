// SPDX-License-Identifier: Apache-2.0
import { showBytes, storageError } from '../errors.ts';

/**
 * The least that a sender has to send to keep its place: judged by the time in which it was the sender that was waited for,
 * so that a pool that stands still for the failover of an OSD costs nobody an import. 35 KB/s is a poor line between a
 * plant and its office; slower ones take a day for an image.
 */
const WINDOW_MS = 60_000;
const LEAST_BYTES = 2 * 1024 ** 2;

export class Pace {
  #waitedMs = 0;
  #bytes = 0;

  /** How long the sender may be waited for until it is judged. */
  leftMs(): number {
    return WINDOW_MS - this.#waitedMs;
  }

  received(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Throws IMPORT_TOO_SLOW. */
  waited(ms: number): void {
    this.#waitedMs += ms;
    if (this.#waitedMs < WINDOW_MS) return;
    if (this.#bytes < LEAST_BYTES) {
      throw storageError(
        'importTooSlow',
        `the sender sent ${showBytes(BigInt(this.#bytes))} within the ${WINDOW_MS / 1000} s in which it was waited for, ` +
          `at least ${showBytes(BigInt(LEAST_BYTES))} are expected`,
        { hint: 'send the image from a machine that is nearer to the cluster' },
      );
    }
    this.#waitedMs = 0;
    this.#bytes = 0;
  }
}
