// SPDX-License-Identifier: Apache-2.0
/**
 * The data of a qcow2 image, as (offset, bytes) in ascending order. Every offset of the tables is
 * checked before it is used: inside the file, on a cluster boundary, used once.
 */
import { promisify } from 'node:util';
import { inflateRaw } from 'node:zlib';
import { storageError } from '../errors.ts';
import type { Qcow2Header } from './qcow2.ts';

export interface ReadAt {
  /** Exactly `bytes` bytes; what lies beyond the end of the file is zeros. */
  read(offset: number, bytes: number): Promise<Buffer>;
}

export interface Extent {
  readonly offset: number;
  readonly data: Buffer;
}

/** Neighbours in the disk that are neighbours in the file. */
interface Run {
  readonly offset: number;
  readonly at: number;
  bytes: number;
}

const inflate = promisify(inflateRaw);
/** Neighbouring clusters are read together up to this. */
const READ_BYTES = 1024 ** 2;
const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const ALL_ZERO = 1n;

function invalid(why: string): Error {
  return storageError('imageInvalid', `the qcow2 image is damaged: ${why}`);
}

/** One bit for each cluster of the file that is spoken for. */
class ClusterMap {
  readonly #bits: Uint8Array;
  readonly #header: Qcow2Header;

  constructor(header: Qcow2Header) {
    this.#header = header;
    this.#bits = new Uint8Array(Math.ceil(header.fileBytes / header.clusterBytes / 8) + 1);
    for (const region of header.regions) this.claim(region.offset, region.bytes, region.what);
  }

  has(offset: number): boolean {
    const cluster = Math.floor(offset / this.#header.clusterBytes);
    return ((this.#bits[cluster >>> 3] ?? 0) & (1 << (cluster & 7))) !== 0;
  }

  claim(offset: number, bytes: number, what: string): void {
    const { clusterBytes } = this.#header;
    for (let at = offset; at < offset + bytes; at += clusterBytes) {
      if (this.has(at)) throw invalid(`its ${what} overlaps something else at ${at}`);
      const cluster = at / clusterBytes;
      this.#bits[cluster >>> 3] = (this.#bits[cluster >>> 3] ?? 0) | (1 << (cluster & 7));
    }
  }
}

export async function* qcow2Data(file: ReadAt, header: Qcow2Header): AsyncGenerator<Extent> {
  const { clusterBytes, virtualSizeBytes, fileBytes } = header;
  const claimed = new ClusterMap(header);
  const l2Entries = clusterBytes / 8;
  const l2Offsets = await readL1(file, header, claimed);
  let compressedBytes = 0;
  let run = null as Run | null;

  async function* flush(): AsyncGenerator<Extent> {
    if (run === null) return;
    const { offset, at, bytes } = run;
    run = null;
    yield { offset, data: await file.read(at, bytes) };
  }

  for (const [index, l2Offset] of l2Offsets) {
    const table = await file.read(l2Offset, clusterBytes);
    for (let slot = 0; slot < l2Entries; slot++) {
      const entry = table.readBigUInt64BE(slot * 8);
      if (entry === 0n) continue;
      const offset = (index * l2Entries + slot) * clusterBytes;
      if (offset >= virtualSizeBytes) continue;
      const bytes = Math.min(clusterBytes, virtualSizeBytes - offset);
      if ((entry & COMPRESSED) !== 0n) {
        yield* flush();
        const where = compressedWhere(entry, header, claimed);
        compressedBytes += where.bytes;
        // Each may reach into its neighbour's last sector; many that share one place are a bomb.
        if (compressedBytes > 2 * fileBytes) throw invalid('its compressed clusters overlap each other');
        yield { offset, data: (await decompress(file, where, clusterBytes)).subarray(0, bytes) };
        continue;
      }
      const at = standardWhere(entry, header, bytes);
      if (at === null) continue;
      claimed.claim(at, clusterBytes, 'data');
      const last = run;
      if (
        last !== null &&
        last.offset + last.bytes === offset &&
        last.at + last.bytes === at &&
        last.bytes + bytes <= READ_BYTES
      ) {
        last.bytes += bytes;
      } else {
        yield* flush();
        run = { offset, at, bytes };
      }
    }
  }
  yield* flush();
}

/** The L2 tables that exist, as [index, offset]. All are claimed before any data is. */
async function readL1(file: ReadAt, header: Qcow2Header, claimed: ClusterMap): Promise<[number, number][]> {
  const { clusterBytes, l1Entries, l1Offset, fileBytes } = header;
  const l1 = await file.read(l1Offset, l1Entries * 8);
  const tables: [number, number][] = [];
  for (let index = 0; index < l1Entries; index++) {
    const entry = l1.readBigUInt64BE(index * 8);
    if ((entry & ~(OFFSET_MASK | COPIED)) !== 0n) throw invalid(`reserved bits are set in entry ${index} of its L1`);
    const offset = Number(entry & OFFSET_MASK);
    if (offset === 0) continue;
    if (offset % clusterBytes !== 0) throw invalid(`its L2 table at ${offset} is not on a cluster boundary`);
    if (offset + clusterBytes > fileBytes) throw invalid(`truncated: its L2 table at ${offset} is beyond the end`);
    claimed.claim(offset, clusterBytes, 'L2 table');
    tables.push([index, offset]);
  }
  return tables;
}

/** Where the cluster's data is; null when it reads as zeros. */
function standardWhere(entry: bigint, header: Qcow2Header, bytes: number): number | null {
  const flags = entry & ~(OFFSET_MASK | COPIED);
  const zeroAllowed = header.version === 3 ? ALL_ZERO : 0n;
  if ((flags & ~zeroAllowed) !== 0n) throw invalid('reserved bits are set in an L2 entry');
  const at = Number(entry & OFFSET_MASK);
  if (flags === ALL_ZERO || at === 0) return null;
  if (at % header.clusterBytes !== 0) throw invalid(`its data at ${at} is not on a cluster boundary`);
  if (at + bytes > header.fileBytes) throw invalid(`truncated: its data at ${at} is beyond the end`);
  return at;
}

function compressedWhere(
  entry: bigint,
  header: Qcow2Header,
  claimed: ClusterMap,
): { readonly at: number; readonly bytes: number } {
  const offsetBits = BigInt(62 - (header.clusterBits - 8));
  const body = entry & ~(COMPRESSED | COPIED);
  const at = body & ((1n << offsetBits) - 1n);
  if (at >= BigInt(header.fileBytes)) throw invalid(`truncated: its compressed data at ${at} is beyond the end`);
  const start = Number(at);
  const sectors = Number(body >> offsetBits) + 1;
  // The count is of sectors that are touched; the last one may be cut off by the end of the file.
  const end = Math.min(Math.floor(start / 512) * 512 + sectors * 512, header.fileBytes);
  if (claimed.has(start) || claimed.has(end - 1)) throw invalid(`its compressed data at ${at} overlaps something else`);
  return { at: start, bytes: end - start };
}

async function decompress(
  file: ReadAt,
  where: { readonly at: number; readonly bytes: number },
  clusterBytes: number,
): Promise<Buffer> {
  const packed = await file.read(where.at, where.bytes);
  let plain: Buffer;
  try {
    // What follows the end of the deflate stream in its last sector is somebody else's.
    plain = await inflate(packed, { maxOutputLength: clusterBytes });
  } catch (cause) {
    throw storageError('imageInvalid', `the qcow2 image is damaged: compressed data at ${where.at} does not unpack`, {
      cause,
    });
  }
  if (plain.length !== clusterBytes) throw invalid(`compressed data at ${where.at} is too short`);
  return plain;
}
