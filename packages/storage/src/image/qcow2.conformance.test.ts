// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { BusbarError } from '@busbar/core/errors';
import { seededRandom } from '@busbar/core/random';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { noise } from '../testing/streams.ts';
import { HEAD_BYTES, parseQcow2Header } from './qcow2.ts';
import { qcow2Data } from './qcow2-data.ts';

/** Our reader beside QEMU's own, on images that QEMU made and on damaged copies of them. */
const run = promisify(execFile);
const KIB = 1024;
const VIRTUAL_BYTES = 6 * KIB ** 2;
/** Damaged copies of each image that both readers are given. */
const DAMAGED_EACH = Number(process.env['BUSBAR_DAMAGED'] ?? 30);

let folder: string;
let serial = 0;
const fresh = (suffix: string) => join(folder, `${serial++}${suffix}`);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'busbar-qcow2-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const qemuImg = (...args: string[]) => run('qemu-img', args, { maxBuffer: 16 * KIB ** 2 });

/** A disk with data at odd places: over cluster borders, at the very end, and zeros that were written. */
async function sourceDisk(): Promise<string> {
  const disk = Buffer.alloc(VIRTUAL_BYTES);
  const random = seededRandom(7);
  for (let n = 0; n < 12; n++) {
    const bytes = 512 * (1 + Math.floor(random.next() * 300));
    noise(bytes, n).copy(disk, 512 * Math.floor((random.next() * (VIRTUAL_BYTES - bytes)) / 512));
  }
  noise(512, 99).copy(disk, VIRTUAL_BYTES - 512);
  const path = fresh('.raw');
  await writeFile(path, disk);
  return path;
}

/** What we read; the reason when we refuse. */
async function ours(file: Buffer): Promise<Buffer | string> {
  const header = parseQcow2Header(file.subarray(0, HEAD_BYTES), file.length);
  if (!header.ok) return header.error;
  const disk = Buffer.alloc(header.value.virtualSizeBytes);
  const read = async (offset: number, bytes: number) => {
    const data = Buffer.alloc(bytes);
    if (offset < file.length) file.copy(data, 0, offset, Math.min(file.length, offset + bytes));
    return data;
  };
  try {
    for await (const { offset, data } of qcow2Data({ read }, header.value)) data.copy(disk, offset);
  } catch (error) {
    if (!(error instanceof BusbarError) || error.reason !== 'IMAGE_INVALID') throw error;
    return error.message;
  }
  return disk;
}

/** What QEMU reads; null when it refuses. */
async function theirs(path: string): Promise<Buffer | null> {
  const raw = `${path}.raw`;
  try {
    await qemuImg('convert', '-f', 'qcow2', '-O', 'raw', path, raw);
    return await readFile(raw);
  } catch {
    return null;
  } finally {
    await rm(raw, { force: true });
  }
}

const MADE: readonly (readonly string[])[] = [
  [],
  ['-o', 'compat=0.10'],
  ['-o', 'cluster_size=512'],
  ['-o', 'cluster_size=4k,refcount_bits=1'],
  ['-o', 'cluster_size=2M,refcount_bits=64'],
  ['-o', 'lazy_refcounts=on'],
  ['-o', 'preallocation=metadata'],
  ['-o', 'preallocation=falloc,cluster_size=32k'],
  ['-c'],
  ['-c', '-o', 'compat=0.10'],
  ['-c', '-o', 'cluster_size=512'],
  ['-c', '-o', 'cluster_size=2M'],
];

async function made(source: string, options: readonly string[]): Promise<string> {
  const path = fresh('.qcow2');
  await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', ...options, source, path);
  return path;
}

describe('an image that qemu-img made', () => {
  test.each(MADE.map((options) => [options.join(' ') || 'by default', options] as const))(
    '%s: is read as QEMU reads it',
    async (_name, options) => {
      const source = await sourceDisk();
      const path = await made(source, options);
      const read = await ours(await readFile(path));
      expect(typeof read).not.toBe('string');
      expect((read as Buffer).equals(await readFile(source))).toBe(true);
    },
  );

  test('with internal snapshots and rewritten, discarded and zeroed clusters: is read as QEMU reads it', async () => {
    const path = await made(await sourceDisk(), ['-o', 'cluster_size=4k']);
    await qemuImg('snapshot', '-c', 'before', path);
    const commands = ['write -P 0x5a 64k 128k', 'write -z 1M 64k', 'discard 2M 1M', 'write -P 0x11 6143k 1k'];
    await run('qemu-io', ['-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), path]);
    await qemuImg('check', path);
    const [read, right] = [await ours(await readFile(path)), await theirs(path)];
    expect(typeof read).not.toBe('string');
    expect((read as Buffer).equals(right as Buffer)).toBe(true);
  });

  test('grown: is read as QEMU reads it', async () => {
    const path = await made(await sourceDisk(), []);
    await qemuImg('resize', path, '40M');
    const [read, right] = [await ours(await readFile(path)), await theirs(path)];
    expect((read as Buffer).equals(right as Buffer)).toBe(true);
  });

  test('a template cannot have: is refused with the way out', async () => {
    const source = await sourceDisk();
    const base = await made(source, []);
    const refused = async (words: RegExp, ...args: string[]) => {
      const path = fresh('.qcow2');
      const given = args.map((arg) => arg.replace('DATA', fresh('.data')));
      await measurable(() => qemuImg('create', '-q', '-f', 'qcow2', ...given, path, '6M'));
      expect(await ours(await readFile(path))).toMatch(words);
    };
    await refused(/backing file; convert it first: qemu-img convert/, '-b', base, '-F', 'qcow2');
    await refused(/backing file/, '-b', '/etc/shadow', '-F', 'raw', '-u');
    await refused(/backing file/, '-b', '../../../../etc/shadow', '-F', 'raw', '-u');
    await refused(/backing file/, '-b', 'json:{"driver":"file","filename":"/etc/shadow"}', '-F', 'raw', '-u');
    await refused(/backing file/, '-b', 'nbd://127.0.0.1:1/x', '-F', 'raw', '-u');
    await refused(/data is in another file/, '-o', 'data_file=DATA,data_file_raw=on');
    await refused(
      /extended L2 entries; convert it first: qemu-img convert -O qcow2 -o extended_l2=off/,
      '-o',
      'extended_l2=on',
    );
    const secret = ['--object', 'secret,id=s,data=secret', '-o'];
    await refused(/encrypted \(method 2\)/, ...secret, 'encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=s');
    await refused(/encrypted \(method 1\)/, ...secret, 'encrypt.format=aes,encrypt.key-secret=s');
    const zstd = fresh('.qcow2');
    await qemuImg('convert', '-O', 'qcow2', '-c', '-o', 'compression_type=zstd', source, zstd);
    expect(await ours(await readFile(zstd))).toMatch(/compressed by other means than zlib; convert it first/);
  });
});

/**
 * For LUKS, qemu-img times the derivation of a key by its own CPU time, which this kernel accounts in ticks: now and then the
 * work falls between two of them, and qemu-img refuses to go on.
 */
async function measurable(work: () => Promise<unknown>): Promise<void> {
  for (let left = 20; ; left--) {
    try {
      await work();
      return;
    } catch (error) {
      if (left === 0 || !String(error).includes('Unable to get accurate CPU usage')) throw error;
    }
  }
}

describe('a damaged image', () => {
  /** A byte or a whole word somewhere in header or tables, as a bad disk or a bad person leaves it. */
  function damage(file: Buffer, random: ReturnType<typeof seededRandom>): Buffer {
    const copy = Buffer.from(file);
    const clusterBytes = 2 ** file.readUInt32BE(20);
    const l1 = Number(file.readBigUInt64BE(40));
    const first = Number(file.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
    const areas = [
      [0, 112],
      [l1, 8 * file.readUInt32BE(36)],
      [first, clusterBytes],
    ] as const;
    for (let n = 0; n <= Math.floor(random.next() * 2); n++) {
      const [start, bytes] = areas[Math.floor(random.next() * areas.length)] ?? areas[0];
      const at = Math.min(start + Math.floor((random.next() * bytes) / 8) * 8, copy.length - 8);
      const kind = random.next();
      if (kind < 0.4) copy[at + Math.floor(random.next() * 8)] = Math.floor(random.next() * 256);
      // Somewhere else in the file: loops and shared clusters.
      else if (kind < 0.7)
        copy.writeBigUInt64BE(BigInt(clusterBytes * Math.floor(random.next() * 40)) | (1n << 63n), at);
      else if (kind < 0.8) copy.writeBigUInt64BE((1n << 62n) | BigInt(Math.floor(random.next() * file.length)), at);
      else
        copy.writeBigUInt64BE(
          BigInt(Math.floor(random.next() * 2 ** 53)) << BigInt(Math.floor(random.next() * 11)),
          at,
        );
    }
    return random.next() < 0.1 ? copy.subarray(0, Math.floor(random.next() * copy.length)) : copy;
  }

  test('is refused, or read as QEMU reads it: never a third thing', async () => {
    const random = seededRandom(Number(process.env['BUSBAR_SEED'] ?? 11));
    const source = await sourceDisk();
    const outcomes = { bothRead: 0, refused: 0, onlyOurs: 0 };
    for (const options of [
      [],
      ['-o', 'compat=0.10,cluster_size=4k'],
      ['-c', '-o', 'cluster_size=4k'],
      ['-o', 'cluster_size=512'],
    ]) {
      const sound = await readFile(await made(source, options));
      for (let n = 0; n < DAMAGED_EACH; n++) {
        const damaged = damage(sound, random);
        const read = await ours(damaged);
        if (typeof read === 'string') {
          outcomes.refused++;
          expect(read).not.toBe('');
          continue;
        }
        const path = fresh('.qcow2');
        await writeFile(path, damaged);
        const right = await theirs(path);
        if (right === null) {
          // QEMU also judges refcounts, which a copy of the data does not need.
          outcomes.onlyOurs++;
          continue;
        }
        outcomes.bothRead++;
        expect(read.equals(right), `${options.join(' ')} copy ${n}`).toBe(true);
      }
    }
    // Otherwise nothing was compared.
    expect(outcomes.bothRead).toBeGreaterThan(5);
    expect(outcomes.refused).toBeGreaterThan(5);
    expect(outcomes.onlyOurs).toBeLessThanOrEqual(outcomes.bothRead);
  });
});
