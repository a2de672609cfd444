// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { reserveOf, SpoolRoom } from './room.ts';
import { fileSpool } from './spool.ts';

/** Goal: whatever is imported, etcd, which writes to the same disk, has room left. */
const GIB = 1024n ** 3n;
const MIB = 1024 ** 2;

let disk: { totalBytes: bigint; freeBytes: bigint };
let room: SpoolRoom;
beforeEach(() => {
  disk = { totalBytes: 100n * GIB, freeBytes: 20n * GIB };
  room = new SpoolRoom('/spool', async () => disk);
});

describe('the reserve', () => {
  test.each([
    ['a small disk', 8n * GIB, 2n * GIB],
    ['a disk of 30 GiB', 30n * GIB, 3n * GIB],
    ['a large disk', 4096n * GIB, 4n * GIB],
  ])('of %s', (_what, total, reserve) => {
    expect(reserveOf(total)).toBe(reserve);
  });
});

describe('room for streams', () => {
  test('ends above the reserve, and the refusal tells all numbers', async () => {
    await expect(room.take(17n * GIB)).rejects.toMatchObject({
      reason: 'SPOOL_FULL',
      message:
        'the image stream of 17.00 GiB does not fit into the spool directory /spool: 20.00 GiB are free, of which 4.00 GiB are kept free',
    });
    await room.take(16n * GIB);
  });

  test('that others were promised is not promised again, whoever comes when', async () => {
    const both = await Promise.allSettled([room.take(10n * GIB), room.take(10n * GIB)]);
    expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    await expect(room.take(7n * GIB)).rejects.toMatchObject({
      message: expect.stringContaining('and 10.00 GiB promised to imports under way'),
    });
  });

  test('that was written is counted as the disk counts it, and what was not is given back', async () => {
    const share = await room.take(10n * GIB);
    await share.wrote(Number(8n * GIB));
    disk.freeBytes -= 8n * GIB;
    await expect(room.take(7n * GIB)).rejects.toMatchObject({ reason: 'SPOOL_FULL' });
    share.giveBack();
    share.giveBack();
    await room.take(8n * GIB);
  });

  test('is looked after while it is filled: when others fill the disk, the import ends, not etcd', async () => {
    const share = await room.take(10n * GIB);
    await share.wrote(65 * MIB);
    disk.freeBytes = 3n * GIB;
    await share.wrote(63 * MIB);
    await expect(share.wrote(1 * MIB)).rejects.toMatchObject({ reason: 'SPOOL_FULL' });
  });

  test('is never promised beyond the reserve, and all given back in the end', async () => {
    const step = fc.record({ take: fc.boolean(), gib: fc.nat(12), which: fc.nat(5) });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        disk = { totalBytes: 100n * GIB, freeBytes: 20n * GIB };
        room = new SpoolRoom('/spool', async () => disk);
        const held: { share: Awaited<ReturnType<SpoolRoom['take']>>; left: bigint }[] = [];
        for (const { take, gib, which } of steps) {
          const bytes = BigInt(gib) * GIB;
          const one = held[which % Math.max(1, held.length)];
          if (take) {
            const share = await room.take(bytes).catch(() => null);
            const promised = held.reduce((sum, { left }) => sum + left, 0n);
            expect(share !== null).toBe(disk.freeBytes - 4n * GIB - promised >= bytes);
            if (share !== null) held.push({ share, left: bytes });
          } else if (one !== undefined) {
            const written = bytes < one.left ? bytes : one.left;
            disk.freeBytes -= written;
            one.left -= written;
            await one.share.wrote(Number(written));
          }
          expect(disk.freeBytes).toBeGreaterThanOrEqual(4n * GIB);
        }
        for (const { share } of held) share.giveBack();
        await room.take(disk.freeBytes - 4n * GIB);
      }),
      { numRuns: numRuns(100) },
    );
  });
});

describe('the spool directory', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'busbar-spool-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  test('holds no file by name, and what a process left that died in between goes with the next import', async () => {
    await writeFile(join(dir, 'spool-0c9b'), 'left');
    await writeFile(join(dir, 'image.1.raw'), "somebody else's");
    const spool = await fileSpool(dir, room)(1000);
    expect(await readdir(dir)).toEqual(['image.1.raw']);
    await spool.write(0, Buffer.from('abc'));
    await spool.flush();
    expect((await spool.read(0, 3)).toString()).toBe('abc');
    await spool.close();
    await room.take(16n * GIB);
  });

  test('says how much is free on the disk of a folder that is not there yet', async () => {
    const { freeBytes, totalBytes, reserveBytes } = await new SpoolRoom(join(dir, 'spool')).state();
    expect(freeBytes).toBeGreaterThan(0n);
    expect(totalBytes).toBeGreaterThan(freeBytes);
    expect(reserveBytes).toBe(reserveOf(totalBytes));
  });
});
