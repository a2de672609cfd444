// SPDX-License-Identifier: Apache-2.0
import { createHash, randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';
import { transferText } from './transfer.ts';

// Whole commands on a machine that may be busy with other tests: a limit for hanging, not a measure.
vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
const DATA = randomBytes(3 * 1024 * 1024 + 17);
const SHA256 = createHash('sha256').update(DATA).digest('hex');
beforeEach(async () => {
  lab = await startLab(2);
  lab.file('disk.img', DATA);
});
afterEach(() => lab.end());

test('streams the file with its checksum', async () => {
  const { code, stdout } = await lab.cli('image', 'import', 'disk', 'disk.img', '--label', 'a=b');
  expect({ code, stdout }).toEqual({ code: 0, stdout: `image/disk imported (3MiB, sha256 ${SHA256})\n` });
  expect(lab.cluster.images.get('disk')).toMatchObject({
    meta: { labels: { a: 'b' } },
    spec: { format: 'IMAGE_FORMAT_RAW', fileSizeBytes: BigInt(DATA.length), sha256: SHA256 },
    status: { sha256: SHA256 },
  });
});

test('the format is seen from the first bytes', async () => {
  lab.file('disk.qcow2', Buffer.concat([Buffer.from('QFI\u00fb', 'latin1'), DATA]));
  await lab.cli('image', 'import', 'q', 'disk.qcow2');
  expect(lab.cluster.images.get('q')?.spec?.format).toBe('IMAGE_FORMAT_QCOW2');
  expect(await lab.cli('image', 'import', 'r', 'disk.img', '--format', 'qcow2')).toMatchObject({ code: 2 });
});

test('the controller dies in the middle: begun again at the next', async () => {
  lab.cluster.duringImport = (done) => {
    if (done < 1_000_000n) return;
    lab.cluster.duringImport = undefined;
    lab.controllers[0]?.kill();
  };
  const { code, stderr } = await lab.cli('image', 'import', 'disk', 'disk.img');
  expect(code).toBe(0);
  expect(stderr).toMatch(/the stream to 127.0.0.1:\d+ broke .*; beginning again/);
  expect(lab.cluster.images.get('disk')?.status?.sha256).toBe(SHA256);
});

test('arrived damaged', async () => {
  lab.cluster.corrupt = true;
  const { code, stderr } = await lab.cli('image', 'import', 'disk', 'disk.img');
  expect(code).toBe(1);
  expect(stderr).toContain('do: busbar image delete disk, then import it again');
});

test('--dry-run sends the header only; no file, empty file, taken name', async () => {
  expect(await lab.cli('image', 'import', 'disk', 'disk.img', '--dry-run')).toMatchObject({ code: 0 });
  expect(lab.cluster.images.size).toBe(0);
  expect(await lab.cli('image', 'import', 'disk', 'missing.img')).toMatchObject({ code: 2 });
  lab.file('empty.img', '');
  expect(await lab.cli('image', 'import', 'disk', 'empty.img')).toMatchObject({ code: 2 });
  await lab.cli('image', 'import', 'disk', 'disk.img');
  expect(await lab.cli('image', 'import', 'disk', 'disk.img')).toMatchObject({ code: 4 });
});

test('the server’s pace is kept: no more is read than fits the windows', async () => {
  lab.file('large.img', Buffer.alloc(64 * 1024 * 1024));
  let release = () => {};
  const held = new Promise<void>((done) => {
    release = done;
  });
  lab.cluster.duringImport = () => held;
  // Positions of the reads; the checksum was made in a first pass, so the last one that began at 0 counts.
  let position = 0;
  const handle = await open(join(lab.directory, 'large.img'));
  const reads = vi.spyOn(Object.getPrototypeOf(handle) as typeof handle, 'read');
  await handle.close();
  const command = lab.start(['image', 'import', 'large', 'large.img']);
  while (!lab.cluster.calls.includes('ImportImage')) await sleep(10);
  // Until nothing is read any more. Without back-pressure that is at the end of the file.
  for (let still = 0; still < 10; await sleep(50)) {
    const last = Number((reads.mock.lastCall as readonly unknown[] | undefined)?.[3] ?? 0);
    still = last === position ? still + 1 : 0;
    position = last;
  }
  reads.mockRestore();
  expect(position).toBeLessThan(32 * 1024 * 1024);
  lab.cluster.duringImport = undefined;
  release();
  expect((await command.ended).code).toBe(0);
});

test('the line of progress', () => {
  expect(transferText('receive', 50 * 1024 * 1024, 200 * 1024 * 1024, 1000)).toBe(
    '  receive 50MiB of 200MiB, 25%, 52.4 MB/s, 3s left',
  );
  expect(transferText('convert', 200, 200, 1000)).toBe('  convert 200B of 200B, 100%, 0.0 MB/s');
});
