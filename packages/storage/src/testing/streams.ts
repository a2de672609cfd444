// SPDX-License-Identifier: Apache-2.0
/** Disk contents and streams for tests. */
import { createHash } from 'node:crypto';
import { seededRandom } from '@busbar/core/random';

export const MIB = 1024 * 1024;

export function noise(bytes: number, seed: number): Buffer {
  const random = seededRandom(seed);
  const data = Buffer.allocUnsafe(bytes);
  for (let at = 0; at + 4 <= bytes; at += 4) data.writeUInt32LE(Math.floor(random.next() * 2 ** 32), at);
  return data;
}

export function sha256(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

/** In chunks of an odd size, as a network delivers them. */
export async function* streamOf(data: Uint8Array, chunkBytes = 100_003): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += chunkBytes) yield data.subarray(at, at + chunkBytes);
}

/** Sends `data` and then nothing more, without ending. */
export async function* stallAfter(data: Uint8Array, stalled: () => void): AsyncGenerator<Uint8Array> {
  yield* streamOf(data);
  stalled();
  await new Promise<never>(() => {});
}
