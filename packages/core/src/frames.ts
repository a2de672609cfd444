// SPDX-License-Identifier: Apache-2.0

/**
 * Messages on a byte stream, each after its length in two bytes. For streams where nothing larger is ever said: a peer that
 * announces more is told from its first two bytes.
 */
const LENGTH_BYTES = 2;
const LENGTH_MAX = 0xffff;

export function frameOf(message: Uint8Array): Uint8Array {
  if (message.length > LENGTH_MAX) throw new Error(`a frame of ${message.length} bytes; at most ${LENGTH_MAX} fit`);
  const frame = new Uint8Array(LENGTH_BYTES + message.length);
  new DataView(frame.buffer).setUint16(0, message.length);
  frame.set(message, LENGTH_BYTES);
  return frame;
}

/** Puts frames together from whatever pieces they come in. Holds one unfinished frame at most. */
export class FrameReader {
  readonly #bytesMax: number;
  #rest: Uint8Array = new Uint8Array(0);

  /** `bytesMax`: of one message. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The messages that are whole now. Throws for one that is too long. */
  *take(piece: Uint8Array): Generator<Uint8Array> {
    let bytes = piece;
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + piece.length);
      bytes.set(this.#rest);
      bytes.set(piece, this.#rest.length);
    }
    let offset = 0;
    while (bytes.length - offset >= LENGTH_BYTES) {
      const length = new DataView(bytes.buffer, bytes.byteOffset + offset).getUint16(0);
      if (length > this.#bytesMax) throw new Error(`a frame of ${length} bytes; at most ${this.#bytesMax} are taken`);
      if (bytes.length - offset < LENGTH_BYTES + length) break;
      yield bytes.subarray(offset + LENGTH_BYTES, offset + LENGTH_BYTES + length);
      offset += LENGTH_BYTES + length;
    }
    this.#rest = bytes.slice(offset);
  }
}
