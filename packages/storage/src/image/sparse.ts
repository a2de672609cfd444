// SPDX-License-Identifier: Apache-2.0
/** Takes what zeros there are out of a disk's data, whether or not its format knows about them. */

/** Unit of the search; QEMU's own cluster size, and far below an RBD object. */
const UNIT_BYTES = 64 * 1024;
/** No write crosses a multiple of this: the size of an RBD object. */
export const BLOCK_BYTES = 4 * 1024 * 1024;
const ZEROS = Buffer.alloc(UNIT_BYTES);

export type WriteAt = (offset: number, data: Buffer) => Promise<void>;

/** Data goes in at ascending offsets; runs that are not all zero come out, inside one block each. */
export class SparseWriter {
  readonly #write: WriteAt;
  readonly #block = Buffer.alloc(BLOCK_BYTES);
  #blockStart = 0;
  #dirtyTo = 0;

  constructor(write: WriteAt) {
    this.#write = write;
  }

  async push(offset: number, data: Uint8Array): Promise<void> {
    for (let done = 0; done < data.length; ) {
      const at = offset + done;
      const start = at - (at % BLOCK_BYTES);
      if (start !== this.#blockStart) {
        await this.flush();
        this.#blockStart = start;
      }
      const bytes = Math.min(data.length - done, start + BLOCK_BYTES - at);
      this.#block.set(data.subarray(done, done + bytes), at - start);
      this.#dirtyTo = at - start + bytes;
      done += bytes;
    }
  }

  /** The buffer given to `write` is used again after it has resolved. */
  async flush(): Promise<void> {
    const used = this.#block.subarray(0, this.#dirtyTo);
    let runStart = -1;
    for (let at = 0; at <= used.length; at += UNIT_BYTES) {
      const unit = used.subarray(at, at + UNIT_BYTES);
      const isZero = unit.equals(ZEROS.subarray(0, unit.length));
      if (!isZero && runStart < 0) runStart = at;
      if ((isZero || at + UNIT_BYTES > used.length) && runStart >= 0) {
        await this.#write(this.#blockStart + runStart, used.subarray(runStart, isZero ? at : used.length));
        runStart = -1;
      }
    }
    used.fill(0);
    this.#dirtyTo = 0;
  }
}
