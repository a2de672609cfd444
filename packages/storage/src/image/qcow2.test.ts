// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { buildQcow2 } from '../testing/qcow2-builder.ts';
import { MIB, noise } from '../testing/streams.ts';
import { HEAD_BYTES, parseQcow2Header } from './qcow2.ts';
import { type Extent, qcow2Data } from './qcow2-data.ts';

const CLUSTER = 65536;
const small = (version: 2 | 3 = 3, compressed = false) =>
  buildQcow2({
    version,
    compressed,
    virtualBytes: 8 * MIB,
    clusters: new Map([0, 1, 5, 127].map((n) => [n, noise(CLUSTER, n)])),
  });
const parse = (file: Buffer, fileBytes = file.length) => parseQcow2Header(file.subarray(0, HEAD_BYTES), fileBytes);

async function extents(file: Buffer): Promise<Extent[]> {
  const header = parse(file);
  if (!header.ok) throw new Error(header.error);
  const read = async (offset: number, bytes: number) => {
    const data = Buffer.alloc(bytes);
    file.copy(data, 0, offset, Math.min(file.length, offset + bytes));
    return data;
  };
  const found: Extent[] = [];
  for await (const extent of qcow2Data({ read }, header.value)) found.push(extent);
  return found;
}

describe('the header', () => {
  test('of sound images is taken', () => {
    for (const version of [2, 3] as const) {
      expect(parse(small(version))).toMatchObject({
        ok: true,
        value: { version, virtualSizeBytes: 8 * MIB, clusterBytes: CLUSTER },
      });
    }
  });

  const set32 = (at: number, value: number) => (file: Buffer) => void file.writeUInt32BE(value, at);
  const set64 = (at: number, value: bigint) => (file: Buffer) => void file.writeBigUInt64BE(value, at);
  const extension = (type: number) => (file: Buffer) => {
    file.writeUInt32BE(type, 104);
    file.writeUInt32BE(8, 108);
  };
  test.each<[string, (file: Buffer) => void, RegExp]>([
    ['another magic', set32(0, 0x4b444d56), /not in qcow2 format/],
    ['version 1', set32(4, 1), /version 1 is unknown/],
    ['version 4', set32(4, 4), /version 4 is unknown/],
    ['a backing file', set64(8, 512n), /needs a backing file/],
    ['the length of a backing file name alone', set32(16, 9), /backing file/],
    ['AES', set32(32, 1), /encrypted \(method 1\)/],
    ['LUKS', set32(32, 2), /encrypted \(method 2\)/],
    ['a LUKS extension', extension(0x0537be77), /encrypted \(LUKS\)/],
    ['clusters too small', set32(20, 8), /cluster size/],
    ['clusters too large', set32(20, 22), /cluster size/],
    ['no size', set64(24, 0n), /virtual size is 0/],
    ['an absurd size', set64(24, 2n ** 63n), /absurd/],
    ['an odd size', set64(24, 1000n), /multiple of 512/],
    ['a size beyond its L1 table', set64(24, 2n ** 40n), /too short for its size/],
    ['an L1 table too long', set32(36, 0x7fffffff), /L1 table .* too long/],
    ['an L1 table beyond the end', set64(40, 2n ** 40n), /truncated: its L1 table/],
    ['an L1 table off its cluster', set64(40, 2n * 65536n + 8n), /not on a cluster boundary/],
    ['an L1 table over the header', set64(40, 0n), /header and its L1 table overlap/],
    ['an L1 table over the refcounts', set64(40, 65536n), /L1 table and its refcount table overlap/],
    ['no refcounts', set32(56, 0), /no refcount table/],
    ['too many refcounts', set32(56, 0xffffffff), /refcount table .* too long/],
    ['too many snapshots', set32(60, 0xffffffff), /snapshots are too many/],
    ['a corrupt mark', set64(72, 2n), /marked corrupt/],
    ['an external data file', set64(72, 4n), /data is in another file/],
    ['an external data file by extension', extension(0x44415441), /data is in another file/],
    ['extended L2 entries', set64(72, 16n), /extended L2/],
    ['unknown features', set64(72, 1n << 40n), /unknown \(0x10000000000\)/],
    ['a wrong header length', set32(100, 103), /header length/],
    ['wide refcounts', set32(96, 7), /refcount width/],
  ])('with %s is refused', (_what, spoil, words) => {
    const file = small();
    spoil(file);
    const parsed = parse(file);
    expect(parsed.ok).toBe(false);
    if (!parsed.ok) expect(parsed.error).toMatch(words);
  });

  test('"dirty" alone is harmless: it speaks of refcounts', () => {
    const file = small();
    file.writeBigUInt64BE(1n, 72);
    expect(parse(file).ok).toBe(true);
  });

  test('cut off anywhere is refused, with its words', () => {
    const file = small();
    for (let bytes = 0; bytes < 112; bytes++) {
      const parsed = parse(file.subarray(0, bytes));
      expect(parsed.ok ? '' : parsed.error, `${bytes} bytes`).toMatch(/ends within the qcow2 header|truncated/);
    }
    // A head that says more than the file has.
    for (let bytes = 112; bytes < 2 * CLUSTER; bytes += 4099) {
      const parsed = parse(file.subarray(0, bytes));
      expect(parsed.ok ? '' : parsed.error, `${bytes} bytes`).toMatch(/truncated: its (L1|refcount) table/);
    }
  });

  test('any bytes at all are taken or refused, never more', () => {
    const bytes = fc.uint8Array({ minLength: 0, maxLength: 512 });
    fc.assert(fc.property(bytes, fc.nat(), (head, fileBytes) => void parseQcow2Header(head, fileBytes)));
  });

  test('whatever is taken lies inside the file and apart', () => {
    const patch = fc.tuple(fc.nat(111), fc.uint8Array({ minLength: 1, maxLength: 8 }));
    const sound = small().subarray(0, 512);
    fc.assert(
      fc.property(fc.array(patch, { maxLength: 3 }), fc.nat(2 * MIB), (patches, fileBytes) => {
        const head = Buffer.from(sound);
        for (const [at, value] of patches) head.set(value, at);
        const parsed = parseQcow2Header(head, fileBytes);
        if (!parsed.ok) return;
        const regions = parsed.value.regions.toSorted((a, b) => a.offset - b.offset);
        for (const [i, region] of regions.entries()) {
          expect(region.offset + (i === 0 ? 0 : region.bytes)).toBeLessThanOrEqual(fileBytes);
          const next = regions[i + 1];
          if (next !== undefined) expect(region.offset + region.bytes).toBeLessThanOrEqual(next.offset);
        }
      }),
      { numRuns: numRuns(500) },
    );
  });
});

describe('the data', () => {
  test.each([false, true])('is what was put in (compressed %s)', async (compressed) => {
    const disk = Buffer.alloc(8 * MIB);
    for (const { offset, data } of await extents(small(3, compressed))) data.copy(disk, offset);
    for (const n of [0, 1, 5, 127]) {
      expect(disk.subarray(n * CLUSTER, (n + 1) * CLUSTER).equals(noise(CLUSTER, n))).toBe(true);
    }
    expect(disk.subarray(2 * CLUSTER, 5 * CLUSTER).every((byte) => byte === 0)).toBe(true);
  });

  test('neighbours are read together', async () => {
    expect((await extents(small())).map(({ offset, data }) => [offset, data.length])).toEqual([
      [0, 2 * CLUSTER],
      [5 * CLUSTER, CLUSTER],
      [127 * CLUSTER, CLUSTER],
    ]);
  });

  const L1 = 2 * CLUSTER;
  const L2 = 3 * CLUSTER;

  test('cut off anywhere is refused, never filled up with zeros', async () => {
    for (const compressed of [false, true]) {
      const file = small(3, compressed);
      for (let bytes = L2; bytes < file.length; bytes += 3 * 4096) {
        const error = await extents(file.subarray(0, bytes)).catch((e: unknown) => e);
        expect(error, `${bytes} bytes`).toMatchObject({ reason: 'IMAGE_INVALID' });
      }
    }
  });

  test('thousands of names for one packed cluster are a bomb, and given up before all are unpacked', async () => {
    const file = buildQcow2({
      compressed: true,
      virtualBytes: 512 * MIB,
      clusters: new Map([[0, Buffer.alloc(CLUSTER, 'a')]]),
    });
    const entry = file.readBigUInt64BE(L2);
    for (let slot = 1; slot < 4000; slot++) file.writeBigUInt64BE(entry, L2 + 8 * slot);
    const header = parse(file);
    if (!header.ok) throw new Error(header.error);
    let unpacked = 0;
    const read = async (offset: number, bytes: number) => {
      const data = Buffer.alloc(bytes);
      file.copy(data, 0, offset, Math.min(file.length, offset + bytes));
      return data;
    };
    const all = async () => {
      for await (const { data } of qcow2Data({ read }, header.value)) unpacked += data.length;
    };
    await expect(all()).rejects.toMatchObject({ reason: 'IMAGE_INVALID' });
    // Twice the file in packed bytes is what sectors shared by neighbours can add up to.
    expect(unpacked).toBeLessThanOrEqual(CLUSTER * (1 + (2 * file.length) / 512));
  });
  test.each<[string, number, bigint, RegExp]>([
    ['an L2 table beyond the end', L1, 1n << 40n, /truncated: its L2 table/],
    ['an L2 table over the header', L1, 0n | (1n << 63n) | 512n, /not on a cluster boundary/],
    ['an L2 table over the L1 table', L1, BigInt(L1), /L2 table overlaps/],
    ['reserved bits in the L1 table', L1, BigInt(L2) | 1n, /reserved bits/],
    ['data beyond the end', L2, 1n << 40n, /truncated: its data/],
    ['data off its cluster', L2, BigInt(4 * CLUSTER) + 512n, /not on a cluster boundary/],
    ['data used twice', L2, BigInt(5 * CLUSTER), /data overlaps/],
    ['data over the L2 table', L2, BigInt(L2), /data overlaps/],
    ['reserved bits in an L2 table', L2, BigInt(4 * CLUSTER) | 2n, /reserved bits/],
    ['compressed data beyond the end', L2, (1n << 62n) | (1n << 40n), /truncated: its compressed data/],
    ['compressed data over a table', L2, (1n << 62n) | BigInt(L1), /compressed data .* overlaps/],
    ['compressed data that is none', L2, (1n << 62n) | BigInt(4 * CLUSTER), /does not unpack|too short/],
  ])('%s is refused', async (_what, at, entry, words) => {
    const file = small();
    file.writeBigUInt64BE(entry, at);
    const error = await extents(file).catch((e: unknown) => e);
    expect(error).toMatchObject({ reason: 'IMAGE_INVALID' });
    expect((error as Error).message).toMatch(words);
  });

  test('with damaged tables stays inside the disk, or is refused', async () => {
    const patch = fc.tuple(fc.nat(4 * CLUSTER), fc.uint8Array({ minLength: 1, maxLength: 8 }));
    const near = fc.tuple(
      fc.oneof(
        fc.nat(111),
        fc.nat(64).map((n) => L1 + n),
        fc.nat(1024).map((n) => L2 + n),
      ),
      fc.uint8Array({ minLength: 1, maxLength: 8 }),
    );
    const source = [small(3, false), small(2, true)];
    await fc.assert(
      fc.asyncProperty(
        fc.boolean(),
        fc.array(fc.oneof(patch, near), { minLength: 1, maxLength: 4 }),
        async (b, patches) => {
          const file = Buffer.from(source[Number(b)] as Buffer);
          for (const [at, value] of patches)
            file.set(value.subarray(0, Math.max(0, file.length - at)), Math.min(at, file.length));
          const header = parse(file);
          if (!header.ok) return;
          try {
            let end = 0;
            for (const { offset, data } of await extents(file)) {
              expect(offset).toBeGreaterThanOrEqual(end);
              end = offset + data.length;
            }
            expect(end).toBeLessThanOrEqual(header.value.virtualSizeBytes);
          } catch (error) {
            if (!(error instanceof BusbarError)) throw error;
            expect(error.reason).toBe('IMAGE_INVALID');
          }
        },
      ),
      { numRuns: numRuns(200) },
    );
  });
});
