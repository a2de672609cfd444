// SPDX-License-Identifier: Apache-2.0
/**
 * A strict reader of the qcow2 header (docs/interop/qcow2.txt of QEMU). Pure.
 *
 * An image comes from a user and is not to be trusted: a backing file would read /etc/shadow of the
 * controller into a guest's disk, and QEMU's own reader has had its overflows. So what a template
 * does not need is refused with the reason, and QEMU's tools never see the file at all.
 */
import { ok, type Result, refuse } from '@busbar/core/result';

/** Where the file says something is; always inside the file and never overlapping another one. */
export interface Region {
  readonly what: string;
  readonly offset: number;
  readonly bytes: number;
}

export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly virtualSizeBytes: number;
  readonly clusterBits: number;
  readonly clusterBytes: number;
  readonly l1Offset: number;
  readonly l1Entries: number;
  readonly fileBytes: number;
  readonly regions: readonly Region[];
}

const MAGIC = 0x514649fb;
const V2_BYTES = 72;
const V3_BYTES = 104;
/** QEMU's QCOW_MAX_L1_SIZE and QCOW_MAX_REFTABLE_SIZE. */
const MAX_L1_BYTES = 32 * 1024 ** 2;
const MAX_REFCOUNT_TABLE_BYTES = 8 * 1024 ** 2;
const MAX_SNAPSHOTS = 65536;
/** Ceph's largest image would be bigger; no template is. */
const MAX_VIRTUAL_BYTES = 64 * 1024 ** 4;
/** One bit for each is kept while the tables are read. */
const MAX_CLUSTERS = 2 ** 30;
/** So much of the file has to be at hand to parse the header with its extensions. */
export const HEAD_BYTES = 64 * 1024;

const INCOMPATIBLE = { dirty: 1n, corrupt: 2n, externalData: 4n, compression: 8n, extendedL2: 16n } as const;
const EXTENSIONS = { end: 0, externalData: 0x44415441, luks: 0x0537be77 } as const;

const convert = (option: string) => `convert it first: qemu-img convert -O qcow2${option} OLD NEW`;

class Refused extends Error {}

function demand(condition: boolean, why: string): asserts condition {
  if (!condition) throw new Refused(why);
}

/** `head` is the file's first HEAD_BYTES (or all of it), `fileBytes` its whole length. */
export function parseQcow2Header(head: Uint8Array, fileBytes: number): Result<Qcow2Header, string> {
  try {
    return ok(parse(Buffer.from(head.buffer, head.byteOffset, head.byteLength), fileBytes));
  } catch (error) {
    if (error instanceof Refused) return refuse(error.message);
    throw error;
  }
}

function parse(head: Buffer, fileBytes: number): Qcow2Header {
  demand(head.length >= V2_BYTES, `the file ends within the qcow2 header (${head.length} bytes)`);
  demand(head.readUInt32BE(0) === MAGIC, 'the file is not in qcow2 format (its first four bytes are not "QFI\\xfb")');
  const version = head.readUInt32BE(4);
  demand(version === 2 || version === 3, `qcow2 version ${version} is unknown; 2 and 3 are known`);

  demand(head.readBigUInt64BE(8) === 0n, `it needs a backing file; ${convert('')}`);
  demand(head.readUInt32BE(16) === 0, `it names a backing file; ${convert('')}`);
  demand(head.readUInt32BE(32) === 0, `it is encrypted (method ${head.readUInt32BE(32)}); ${convert('')}`);

  const clusterBits = head.readUInt32BE(20);
  demand(clusterBits >= 9 && clusterBits <= 21, `its cluster size of 2^${clusterBits} bytes is not in 2^9 to 2^21`);
  const clusterBytes = 2 ** clusterBits;
  demand(fileBytes / clusterBytes <= MAX_CLUSTERS, `${fileBytes} bytes are too many for clusters of ${clusterBytes}`);

  let headerBytes = V2_BYTES;
  if (version === 3) {
    demand(head.length >= V3_BYTES, `the file ends within the qcow2 header (${head.length} bytes)`);
    headerBytes = head.readUInt32BE(100);
    demand(
      headerBytes >= V3_BYTES && headerBytes % 8 === 0 && headerBytes <= clusterBytes,
      `its header length of ${headerBytes} bytes is wrong`,
    );
    checkFeatures(head.readBigUInt64BE(72), head, headerBytes);
    const refcountOrder = head.readUInt32BE(96);
    demand(refcountOrder <= 6, `its refcount width of 2^${refcountOrder} bits is wrong`);
  }
  checkExtensions(head.subarray(0, Math.min(head.length, clusterBytes)), headerBytes);

  const virtualSize = head.readBigUInt64BE(24);
  demand(virtualSize > 0n, 'its virtual size is 0');
  demand(virtualSize <= BigInt(MAX_VIRTUAL_BYTES), `its virtual size of ${virtualSize} bytes is absurd`);
  demand(virtualSize % 512n === 0n, `its virtual size of ${virtualSize} bytes is not a multiple of 512`);
  const virtualSizeBytes = Number(virtualSize);

  const l1Entries = head.readUInt32BE(36);
  const needed = Math.ceil(virtualSizeBytes / (clusterBytes * (clusterBytes / 8)));
  demand(l1Entries >= needed, `its L1 table of ${l1Entries} entries is too short for its size (${needed} needed)`);
  demand(l1Entries * 8 <= MAX_L1_BYTES, `its L1 table of ${l1Entries} entries is too long`);

  const refcountBytes = head.readUInt32BE(56) * clusterBytes;
  demand(refcountBytes > 0, 'it has no refcount table');
  demand(refcountBytes <= MAX_REFCOUNT_TABLE_BYTES, `its refcount table of ${refcountBytes} bytes is too long`);
  const snapshots = head.readUInt32BE(60);
  demand(snapshots <= MAX_SNAPSHOTS, `its ${snapshots} snapshots are too many`);

  const region = (what: string, offset: bigint, bytes: number): Region => {
    demand(offset % BigInt(clusterBytes) === 0n, `its ${what} at ${offset} is not on a cluster boundary`);
    demand(offset + BigInt(bytes) <= BigInt(fileBytes), `it is truncated: its ${what} lies beyond the end of the file`);
    return { what, offset: Number(offset), bytes };
  };
  const regions = [
    { what: 'header', offset: 0, bytes: clusterBytes },
    region('L1 table', head.readBigUInt64BE(40), l1Entries * 8),
    region('refcount table', head.readBigUInt64BE(48), refcountBytes),
    // The length of a snapshot table is known only after reading it; an entry takes at least 40 bytes.
    ...(snapshots > 0 ? [region('snapshot table', head.readBigUInt64BE(64), snapshots * 40)] : []),
  ];
  for (const [i, a] of regions.entries()) {
    for (const b of regions.slice(i + 1)) {
      const apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
      demand(apart, `its ${a.what} and its ${b.what} overlap`);
    }
  }
  const l1Offset = regions[1]?.offset ?? 0;
  return { version, virtualSizeBytes, clusterBits, clusterBytes, l1Offset, l1Entries, fileBytes, regions };
}

function checkFeatures(features: bigint, head: Buffer, headerBytes: number): void {
  demand((features & INCOMPATIBLE.corrupt) === 0n, 'it is marked corrupt; try: qemu-img check -r all');
  demand((features & INCOMPATIBLE.externalData) === 0n, `its data is in another file; ${convert('')}`);
  demand((features & INCOMPATIBLE.extendedL2) === 0n, `it has extended L2 entries; ${convert(' -o extended_l2=off')}`);
  if ((features & INCOMPATIBLE.compression) !== 0n) {
    const type = headerBytes > V3_BYTES && head.length > V3_BYTES ? head[V3_BYTES] : 0;
    demand(type === 0, `it is compressed by other means than zlib; ${convert(' -c -o compression_type=zlib')}`);
  }
  // "Dirty" only says that refcounts may be stale, and nothing here reads them.
  const known = INCOMPATIBLE.dirty | INCOMPATIBLE.compression;
  demand((features & ~known) === 0n, `it needs features that are unknown (0x${(features & ~known).toString(16)})`);
}

function checkExtensions(area: Buffer, start: number): void {
  let at = start;
  while (at + 8 <= area.length) {
    const type = area.readUInt32BE(at);
    const length = area.readUInt32BE(at + 4);
    if (type === EXTENSIONS.end) return;
    demand(type !== EXTENSIONS.externalData, `its data is in another file; ${convert('')}`);
    demand(type !== EXTENSIONS.luks, `it is encrypted (LUKS); ${convert('')}`);
    demand(at + 8 + length <= area.length, 'a header extension runs over its first cluster');
    at += 8 + Math.ceil(length / 8) * 8;
  }
}
