// SPDX-License-Identifier: Apache-2.0
import { execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '@busbar/core/clock/clock';
import type { ImageId, VolumeId } from '@busbar/core/ids';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { RbdConfig } from '../config.ts';
import { storageDriverConformance } from '../conformance.ts';
import { type MiniCeph, startMiniCeph } from '../testing/ceph.ts';
import { crashMidImport } from '../testing/crash-import.ts';
import { MIB, noise, sha256, stallAfter, streamOf } from '../testing/streams.ts';
import { type RbdDriver, rbdDriver } from './driver.ts';

const run = promisify(execFile);
let ceph: MiniCeph;
let scratch: string;

beforeAll(async () => {
  ceph = await startMiniCeph();
  scratch = await mkdtemp(join(tmpdir(), 'busbar-rbd-'));
});
afterAll(async () => {
  await ceph?.stop();
  if (scratch !== undefined) await rm(scratch, { recursive: true, force: true });
});

const configOf = (more: object = {}) => ({
  driver: 'rbd' as const,
  pool: ceph.pool,
  cephConf: ceph.conf,
  user: ceph.user,
  keyring: ceph.keyring,
  spoolDir: join(scratch, 'spool'),
  // Patient, because the machine that runs the tests may be busy; tests of deadlines set their own.
  timeouts: { mountS: 15, monOpS: 15, osdOpS: 20 },
  deadlines: { callMs: 40_000, diagnoseMs: 5000 },
  ...more,
});
const open = (more: object = {}): RbdDriver =>
  rbdDriver(RbdConfig.parse(configOf(more)), {
    clock: systemClock,
    logger: silentLogger,
    random: systemRandom,
  });
const newVolume = () => systemRandom.uuid() as VolumeId;
const newImage = () => systemRandom.uuid() as ImageId;
const qemuName = (id: VolumeId) =>
  `rbd:${ceph.pool}/volume.${id}:id=${ceph.user}:conf=${ceph.conf}:keyring=${ceph.keyring}`;

/** QEMU's own block layer has the volume open for writing. */
async function holdOpen(id: VolumeId): Promise<() => Promise<void>> {
  const args = ['--pdeathsig', 'KILL', 'qemu-io', '-f', 'raw', qemuName(id)];
  const child = spawn('setpriv', args, { stdio: ['pipe', 'pipe', 'ignore'] });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  let output = '';
  child.stdout.on('data', (text: Buffer) => {
    output += text.toString();
  });
  child.stdin.write('write 0 512\n');
  await vi.waitFor(() => expect(output).toContain('wrote 512'), { timeout: 30_000 });
  return async () => {
    child.stdin.write('quit\n');
    await exited;
  };
}

storageDriverConformance('rbd', async () => {
  const driver = open();
  return {
    driver,
    async readVolume(id) {
      const file = join(scratch, `export-${id}`);
      await ceph.rbd('export', '--no-progress', `volume.${id}`, file);
      const content = await readFile(file);
      await rm(file);
      return content;
    },
    holdOpen,
    crashMidImport: (imageId) => crashMidImport(configOf(), imageId),
    async limitRoom(bytes) {
      const { totalBytes, availableBytes } = await driver.capacity();
      const quota = Number(totalBytes - availableBytes) + bytes;
      await ceph.ceph('osd', 'pool', 'set-quota', ceph.pool, 'max_bytes', String(quota));
      return async () => void (await ceph.ceph('osd', 'pool', 'set-quota', ceph.pool, 'max_bytes', '0'));
    },
    // One RBD object.
    grainBytes: 4 * MIB,
    async stop() {
      await driver.close();
      expect(await readdir(join(scratch, 'spool'))).toEqual([]);
    },
  };
});

describe('rbd', () => {
  let driver: RbdDriver;
  beforeAll(() => {
    driver = open();
  });
  afterAll(async () => {
    await driver.close();
  });
  const importRaw = (imageId: ImageId, data: Buffer, source: AsyncIterable<Uint8Array> = streamOf(data)) =>
    driver.importImage({
      imageId,
      format: 'raw',
      sizeBytes: BigInt(data.length),
      sha256: sha256(data),
      source,
      signal: new AbortController().signal,
    });

  test('the mini cluster is ready in time', () => {
    expect(ceph.startMs).toBeLessThan(40_000);
  });

  test.each([
    ['plain', []],
    ['compressed', ['-c']],
    ['version 2, clusters of 4 KiB', ['-o', 'compat=0.10,cluster_size=4k']],
    ['clusters of 2 MiB', ['-o', 'cluster_size=2M']],
  ])('a qcow2 image made by qemu-img (%s) compares equal', async (_kind, options) => {
    const raw = join(scratch, 'disk.raw');
    const qcow2 = join(scratch, 'disk.qcow2');
    const data = Buffer.alloc(24 * MIB);
    noise(3 * MIB + 5000, 5).copy(data, MIB);
    noise(1000, 6).copy(data, 17 * MIB + 12_345);
    await writeFile(raw, data);
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', ...options, raw, qcow2]);
    const file = await readFile(qcow2);
    const imageId = newImage();
    const stat = await driver.importImage({
      imageId,
      format: 'qcow2',
      sizeBytes: BigInt(file.length),
      sha256: sha256(file),
      source: streamOf(file, MIB),
      signal: new AbortController().signal,
    });
    const volumeId = newVolume();
    await driver.cloneVolume({ volumeId, imageId, sizeBytes: stat.virtualSizeBytes });
    const { stdout } = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', raw, qemuName(volumeId)]);
    expect(stdout).toContain('Images are identical');
    await driver.deleteVolume(volumeId);
    await driver.deleteImage(imageId);
  });

  test('a child that is killed between and during calls is replaced', async () => {
    await driver.capacity();
    const first = driver.childPid();
    process.kill(first as number, 'SIGKILL');
    await vi.waitFor(() => expect(driver.childPid()).not.toBe(first));
    const volumeId = newVolume();
    await driver.createVolume({ volumeId, sizeBytes: BigInt(4 * MIB) });
    expect(driver.childPid()).not.toBe(first);
    const struck = driver.createVolume({ volumeId: newVolume(), sizeBytes: BigInt(4 * MIB) }).catch((e: unknown) => e);
    process.kill(driver.childPid() as number, 'SIGKILL');
    const outcome = await struck;
    if (outcome !== undefined) expect(outcome).toMatchObject({ reason: 'STORAGE_UNAVAILABLE' });
    await driver.deleteVolume(volumeId);
  });

  test('a child that stands still is replaced at the deadline', async () => {
    const impatient = open({ deadlines: { callMs: 5000, diagnoseMs: 5000 } });
    await impatient.capacity();
    process.kill(impatient.childPid() as number, 'SIGSTOP');
    await expect(impatient.capacity()).rejects.toMatchObject({ reason: 'STORAGE_TIMEOUT' });
    expect((await impatient.capacity()).totalBytes).toBeGreaterThan(0n);
    await impatient.close();
  });

  test('a creation that died before its metadata is replaced by its repeat', async () => {
    const volumeId = newVolume();
    await ceph.rbd('create', '--size', '16M', `volume.${volumeId}`);
    expect(await driver.statVolume(volumeId)).toBeNull();
    expect(await driver.listVolumes()).toContain(volumeId);
    await driver.createVolume({ volumeId, sizeBytes: BigInt(4 * MIB) });
    expect(await driver.statVolume(volumeId)).toMatchObject({ sizeBytes: BigInt(4 * MIB) });
    await driver.deleteVolume(volumeId);
  });

  test('two controllers that make the same volume at once: one is kept, whole, and nothing else is left', async () => {
    const other = open();
    for (let round = 0; round < 4; round++) {
      const volume = { volumeId: newVolume(), sizeBytes: BigInt(4 * MIB) };
      await Promise.all([driver.createVolume(volume), other.createVolume(volume)]);
      expect(await driver.statVolume(volume.volumeId)).toMatchObject({ sizeBytes: volume.sizeBytes });
      expect(await ceph.rbd('ls')).not.toContain('making.');
      await driver.deleteVolume(volume.volumeId);
    }
    await other.close();
  });

  test('one that no VM ever had goes although a client has it open', async () => {
    const volumeId = newVolume();
    await driver.createVolume({ volumeId, sizeBytes: BigInt(4 * MIB) });
    const release = await holdOpen(volumeId);
    await driver.deleteVolume(volumeId, { neverUsed: true });
    expect(await driver.listVolumes()).not.toContain(volumeId);
    expect(await ceph.rbd('ls')).not.toContain(volumeId);
    await release();
  });

  test('an import whose rbd program is killed leaves nothing and its repeat works', async () => {
    const imageId = newImage();
    const data = noise(24 * MIB, 8);
    const killer = async function* () {
      yield* stallAfterKill(data, imageId);
    };
    await expect(importRaw(imageId, data, killer())).rejects.toMatchObject({ reason: 'STORAGE_FAILED' });
    expect(await driver.listImages()).not.toContainEqual(expect.objectContaining({ imageId }));
    await importRaw(imageId, data);
    await driver.deleteImage(imageId);
  });

  /** Sends half, kills the program that takes it, and goes on sending. */
  async function* stallAfterKill(data: Buffer, imageId: ImageId) {
    yield* streamOf(data.subarray(0, 12 * MIB));
    const found = await run('pgrep', ['-f', `import-diff.*image.${imageId}`]);
    for (const pid of found.stdout.trim().split('\n')) process.kill(Number(pid), 'SIGKILL');
    yield* streamOf(data.subarray(12 * MIB));
  }

  test('the key is in no argument of any program', async () => {
    const secret = /key = (\S+)/.exec(await readFile(ceph.keyring, 'utf8'))?.[1] ?? '';
    expect(secret).not.toBe('');
    const imageId = newImage();
    const abort = new AbortController();
    const { promise: stalled, resolve } = Promise.withResolvers<void>();
    const importing = driver
      .importImage({
        imageId,
        format: 'raw',
        sizeBytes: BigInt(8 * MIB),
        sha256: null,
        source: stallAfter(noise(5 * MIB, 9), resolve),
        signal: abort.signal,
      })
      .catch(() => {});
    await stalled;
    const lines = (await readdir('/proc'))
      .filter((name) => /^\d+$/.test(name))
      .map((pid) => {
        try {
          return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        } catch {
          return '';
        }
      });
    expect(lines.some((line) => line.includes('import-diff'))).toBe(true);
    expect(lines.some((line) => line.includes(secret))).toBe(false);
    abort.abort();
    await importing;
  });

  test('denied by Ceph: told with what to check', async () => {
    const stranger = open({ pool: 'device_health_metrics', timeouts: { osdOpS: 2 } });
    const error = (await stranger
      .createVolume({ volumeId: newVolume(), sizeBytes: 512n })
      .catch((e: unknown) => e)) as {
      hint: string;
    };
    expect(error).toMatchObject({ kind: 'unavailable', reason: 'STORAGE_UNAVAILABLE' });
    expect(error.hint).toContain('caps');
    await stranger.close();
  });

  test('monitors that do not answer: told within the deadline', async () => {
    const conf = join(scratch, 'nowhere.conf');
    await writeFile(conf, '[global]\nmon host = [v2:127.0.0.1:9]\n');
    const lost = open({ cephConf: conf, timeouts: { mountS: 2 } });
    const startedAt = performance.now();
    await expect(lost.capacity()).rejects.toMatchObject({ kind: 'unavailable', reason: 'STORAGE_UNAVAILABLE' });
    expect(performance.now() - startedAt).toBeLessThan(12_000);
    await lost.close();
  });

  test('PGs that stand still: every call ends in time with the reason, and works again afterwards', async () => {
    const quick = open({ timeouts: { osdOpS: 3 }, deadlines: { callMs: 8000, diagnoseMs: 4000 } });
    const volumeId = newVolume();
    const sizeBytes = BigInt(8 * MIB);
    await quick.createVolume({ volumeId, sizeBytes });
    const timed = async (work: () => Promise<unknown>) => {
      const startedAt = performance.now();
      const error = (await work().catch((e: unknown) => e)) as { reason: string; message: string };
      return { error, tookMs: performance.now() - startedAt };
    };
    ceph.freezeOsd();
    try {
      const unnoticed = await timed(() => quick.statVolume(volumeId));
      expect(unnoticed.error).toMatchObject({ kind: 'timeout', reason: 'STORAGE_TIMEOUT' });
      expect(unnoticed.error.message).toMatch(/the monitors (answer and )?report HEALTH_/);
      expect(unnoticed.tookMs).toBeLessThan(14_000);
      // What the other OSDs of a real cluster would have reported.
      await ceph.ceph('osd', 'down', '0');
      const noticed = await timed(() => quick.createVolume({ volumeId: newVolume(), sizeBytes }));
      expect(noticed.error).toMatchObject({ reason: 'STORAGE_TIMEOUT' });
      expect(noticed.error.message).toContain('OSD_DOWN');
      expect(noticed.tookMs).toBeLessThan(14_000);
      expect((await quick.capacity()).totalBytes).toBeGreaterThan(0n);
    } finally {
      ceph.thawOsd();
    }
    await vi.waitFor(async () => expect(await quick.statVolume(volumeId)).toMatchObject({ sizeBytes }), {
      timeout: 30_000,
      interval: 500,
    });
    await quick.deleteVolume(volumeId);
    await quick.close();
  });
});
