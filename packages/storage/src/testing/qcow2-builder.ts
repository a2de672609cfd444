// SPDX-License-Identifier: Apache-2.0
/** Small qcow2 images for tests that must not need qemu-img: header, refcount table, L1, L2, data. */
import { deflateRawSync } from 'node:zlib';

export interface Qcow2Options {
  readonly version?: 2 | 3;
  readonly clusterBits?: number;
  readonly virtualBytes: number;
  /** Guest cluster index → its content (a whole cluster). */
  readonly clusters: ReadonlyMap<number, Buffer>;
  readonly compressed?: boolean;
}

export function buildQcow2(options: Qcow2Options): Buffer {
  const { version = 3, clusterBits = 16, virtualBytes, clusters, compressed = false } = options;
  const size = 2 ** clusterBits;
  const perL2 = size / 8;
  const l1Entries = Math.ceil(virtualBytes / (size * perL2));
  const l1Clusters = Math.ceil((l1Entries * 8) / size);
  const header = Buffer.alloc(size);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(version, 4);
  header.writeUInt32BE(clusterBits, 20);
  header.writeBigUInt64BE(BigInt(virtualBytes), 24);
  header.writeUInt32BE(l1Entries, 36);
  header.writeBigUInt64BE(BigInt(2 * size), 40);
  header.writeBigUInt64BE(BigInt(size), 48);
  header.writeUInt32BE(1, 56);
  if (version === 3) {
    header.writeUInt32BE(4, 96);
    header.writeUInt32BE(104, 100);
  }
  const l1 = Buffer.alloc(l1Clusters * size);
  const rest: Buffer[] = [];
  let end = (2 + l1Clusters) * size;
  const append = (block: Buffer) => {
    const at = end;
    rest.push(block);
    end += block.length;
    return at;
  };
  const tables = new Map<number, Buffer>();
  for (const index of clusters.keys()) {
    const l1Index = Math.floor(index / perL2);
    if (tables.has(l1Index)) continue;
    const table = Buffer.alloc(size);
    tables.set(l1Index, table);
    l1.writeBigUInt64BE(BigInt(append(table)) | (1n << 63n), l1Index * 8);
  }
  for (const [index, content] of clusters) {
    const table = tables.get(Math.floor(index / perL2));
    table?.writeBigUInt64BE(compressed ? pack(content) : BigInt(append(content)) | (1n << 63n), (index % perL2) * 8);
  }
  function pack(content: Buffer): bigint {
    const packed = deflateRawSync(content, { windowBits: 12 });
    const padded = Buffer.alloc(Math.ceil(packed.length / 512) * 512);
    packed.copy(padded);
    const at = append(padded);
    return (1n << 62n) | (BigInt(padded.length / 512 - 1) << BigInt(62 - (clusterBits - 8))) | BigInt(at);
  }
  return Buffer.concat([header, Buffer.alloc(size), l1, ...rest]);
}
