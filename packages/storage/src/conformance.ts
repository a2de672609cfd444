// SPDX-License-Identifier: Apache-2.0
/** What every StorageDriver does, whatever is behind it. Run by each driver's test. */
import { BusbarError } from '@busbar/core/errors';
import type { ImageId, VolumeId } from '@busbar/core/ids';
import { systemRandom } from '@busbar/core/random';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { ImportRequest, STORAGE_REASONS, StorageDriver } from './driver.ts';
import { buildQcow2 } from './testing/qcow2-builder.ts';
import { MIB, noise, sha256, stallAfter, streamOf } from './testing/streams.ts';

export interface StorageHarness {
  readonly driver: StorageDriver;
  /** The volume's content, read by other means than the driver. */
  readVolume(id: VolumeId): Promise<Buffer>;
  /** Opens the volume as a hypervisor would; the function lets go of it. */
  holdOpen(id: VolumeId): Promise<() => Promise<void>>;
  /** Leaves the remains of an import whose process was killed. */
  crashMidImport(imageId: ImageId): Promise<void>;
  /** Leaves so much room; null where the pool cannot be limited. The function lifts the limit. */
  limitRoom: ((bytes: number) => Promise<() => Promise<void>>) | null;
  /** Space is counted in units of this. */
  readonly grainBytes: number;
  stop(): Promise<void>;
}

type Reason = (typeof STORAGE_REASONS)[keyof typeof STORAGE_REASONS];

async function refusal(work: Promise<unknown>): Promise<BusbarError> {
  const error = await work.then(
    (value) => new Error(`succeeded with ${String(value)}`),
    (e: unknown) => e,
  );
  if (!(error instanceof BusbarError)) throw error;
  return error;
}

export function storageDriverConformance(name: string, start: () => Promise<StorageHarness>): void {
  describe(`${name}: storage driver`, () => {
    let harness: StorageHarness;
    let driver: StorageDriver;
    beforeAll(async () => {
      harness = await start();
      driver = harness.driver;
    });
    afterAll(async () => {
      await harness?.stop();
    });

    const newVolume = () => systemRandom.uuid() as VolumeId;
    const newImage = () => systemRandom.uuid() as ImageId;
    const refused = async (work: Promise<unknown>, reason: Reason) => {
      const error = await refusal(work);
      expect(error.reason, error.message).toBe(reason);
      return error;
    };
    const request = (imageId: ImageId, data: Buffer, more: Partial<ImportRequest> = {}): ImportRequest => ({
      imageId,
      format: 'raw',
      sizeBytes: BigInt(data.length),
      sha256: sha256(data),
      source: streamOf(data),
      signal: new AbortController().signal,
      ...more,
    });
    const imported = async (data: Buffer, more: Partial<ImportRequest> = {}) => {
      const imageId = newImage();
      const stat = await driver.importImage(request(imageId, data, more));
      return { imageId, stat };
    };
    const isGone = async (imageId: ImageId) => {
      expect(await driver.statImage(imageId)).toBeNull();
      expect((await driver.listImages()).map((image) => image.imageId)).not.toContain(imageId);
    };
    /** 8 MiB with data at both ends, in the middle, and beside a 64 KiB border. */
    const disk = (seed: number) => {
      const data = Buffer.alloc(8 * MIB);
      noise(4096, seed).copy(data, 0);
      noise(70_000, seed + 1).copy(data, 3 * MIB + 65_000);
      noise(512, seed + 2).copy(data, 8 * MIB - 512);
      return data;
    };

    describe('volumes', () => {
      test('are made once, and the same ones again', async () => {
        const volumeId = newVolume();
        expect(await driver.statVolume(volumeId)).toBeNull();
        for (let n = 0; n < 2; n++) await driver.createVolume({ volumeId, sizeBytes: BigInt(8 * MIB) });
        const stat = await driver.statVolume(volumeId);
        expect(stat).toMatchObject({ sizeBytes: BigInt(8 * MIB), parentImageId: null });
        expect(stat?.allocatedBytes).toBeLessThanOrEqual(harness.grainBytes);
        expect(await driver.listVolumes()).toContain(volumeId);
        const error = await refused(
          driver.createVolume({ volumeId, sizeBytes: BigInt(9 * MIB) }),
          'VOLUME_EXISTS_DIFFERENT',
        );
        expect(error.kind).toBe('already-exists');
        for (let n = 0; n < 2; n++) await driver.deleteVolume(volumeId);
        expect(await driver.statVolume(volumeId)).toBeNull();
        expect(await driver.listVolumes()).not.toContain(volumeId);
      });

      test('asked for several times at once are made once', async () => {
        const volumeId = newVolume();
        const sizeBytes = BigInt(4 * MIB);
        await Promise.all([1, 2, 3, 4].map(() => driver.createVolume({ volumeId, sizeBytes })));
        expect(await driver.statVolume(volumeId)).toMatchObject({ sizeBytes });
        await Promise.all([1, 2].map(() => driver.deleteVolume(volumeId)));
        expect(await driver.statVolume(volumeId)).toBeNull();
      });

      test.each([0n, -512n, 1000n])('of %d bytes are refused', async (sizeBytes) => {
        await refused(driver.createVolume({ volumeId: newVolume(), sizeBytes }), 'VOLUME_SIZE');
      });

      test('grow, never shrink', async () => {
        const volumeId = newVolume();
        await refused(driver.resizeVolume(volumeId, BigInt(MIB)), 'VOLUME_NOT_FOUND');
        await driver.createVolume({ volumeId, sizeBytes: BigInt(4 * MIB) });
        for (let n = 0; n < 2; n++) await driver.resizeVolume(volumeId, BigInt(6 * MIB));
        expect((await driver.statVolume(volumeId))?.sizeBytes).toBe(BigInt(6 * MIB));
        await refused(driver.resizeVolume(volumeId, BigInt(4 * MIB)), 'VOLUME_SHRINK');
        await driver.deleteVolume(volumeId);
      });

      test('that are open are not grown: who has them open does that', async () => {
        const volumeId = newVolume();
        await driver.createVolume({ volumeId, sizeBytes: BigInt(4 * MIB) });
        const release = await harness.holdOpen(volumeId);
        await refused(driver.resizeVolume(volumeId, BigInt(8 * MIB)), 'VOLUME_IN_USE');
        // What it has already takes nothing from anybody.
        await driver.resizeVolume(volumeId, BigInt(4 * MIB));
        expect((await driver.statVolume(volumeId))?.sizeBytes).toBe(BigInt(4 * MIB));
        await release();
        await driver.resizeVolume(volumeId, BigInt(8 * MIB));
        await driver.deleteVolume(volumeId);
      });

      test('that are open are not deleted', async () => {
        const volumeId = newVolume();
        await driver.createVolume({ volumeId, sizeBytes: BigInt(4 * MIB) });
        const release = await harness.holdOpen(volumeId);
        try {
          const error = await refused(driver.deleteVolume(volumeId), 'VOLUME_IN_USE');
          expect(error.kind).toBe('precondition');
        } finally {
          await release();
        }
        await driver.deleteVolume(volumeId);
      });
    });

    describe('images', () => {
      test('a raw image and its clone have the content that was sent', async () => {
        const data = disk(10);
        const phases = new Set<string>();
        const { imageId, stat } = await imported(data, { onProgress: ({ phase }) => phases.add(phase) });
        expect(stat).toMatchObject({ virtualSizeBytes: BigInt(data.length), sha256: sha256(data) });
        expect(await driver.statImage(imageId)).toEqual(stat);
        expect(await driver.listImages()).toContainEqual({ imageId, complete: true });
        expect([...phases]).toEqual(['receive', 'seal']);

        const volumeId = newVolume();
        const sizeBytes = BigInt(data.length + 2 * MIB);
        for (let n = 0; n < 2; n++) await driver.cloneVolume({ volumeId, imageId, sizeBytes });
        expect(await driver.statVolume(volumeId)).toMatchObject({ sizeBytes, parentImageId: imageId });
        const content = await harness.readVolume(volumeId);
        expect(content.length).toBe(Number(sizeBytes));
        expect(content.subarray(0, data.length).equals(data)).toBe(true);
        expect(content.subarray(data.length).every((byte) => byte === 0)).toBe(true);
        await refused(driver.createVolume({ volumeId, sizeBytes }), 'VOLUME_EXISTS_DIFFERENT');

        const error = await refused(driver.deleteImage(imageId), 'IMAGE_IN_USE');
        expect(error.message).toContain(volumeId);
        await driver.deleteVolume(volumeId);
        for (let n = 0; n < 2; n++) await driver.deleteImage(imageId);
        await isGone(imageId);
      });

      test.each([
        { version: 2 as const, compressed: false },
        { version: 3 as const, compressed: true },
      ])('a qcow2 image ($version, compressed $compressed) becomes the disk that it describes', async (kind) => {
        const data = disk(20 + kind.version);
        const clusters = new Map<number, Buffer>();
        for (let n = 0; n < data.length / 65536; n++) {
          const cluster = data.subarray(n * 65536, (n + 1) * 65536);
          if (cluster.some((byte) => byte !== 0)) clusters.set(n, cluster);
        }
        const file = buildQcow2({ ...kind, virtualBytes: data.length, clusters });
        const { imageId, stat } = await imported(file, { format: 'qcow2' });
        expect(stat).toMatchObject({ virtualSizeBytes: BigInt(data.length), sha256: sha256(file) });
        const volumeId = newVolume();
        await driver.cloneVolume({ volumeId, imageId, sizeBytes: stat.virtualSizeBytes });
        expect((await harness.readVolume(volumeId)).equals(data)).toBe(true);
        await driver.deleteVolume(volumeId);
        await driver.deleteImage(imageId);
      });

      test('100 MiB of zeros with 1 MiB of data take little space', async () => {
        const data = Buffer.alloc(100 * MIB);
        noise(MIB, 30).copy(data, 40 * MIB);
        const { imageId, stat } = await imported(data);
        expect(stat.allocatedBytes).toBeGreaterThanOrEqual(BigInt(MIB));
        expect(stat.allocatedBytes).toBeLessThanOrEqual(BigInt(2 * MIB + harness.grainBytes));
        await driver.deleteImage(imageId);
      });

      test('the same import again succeeds without reading, another one is refused', async () => {
        const data = disk(40);
        const { imageId, stat } = await imported(data);
        const source = vi.fn(() => streamOf(data));
        const again = { [Symbol.asyncIterator]: source };
        expect(await driver.importImage(request(imageId, data, { source: again }))).toEqual(stat);
        expect(await driver.importImage(request(imageId, data, { source: again, sha256: null }))).toEqual(stat);
        expect(source).not.toHaveBeenCalled();
        await refused(driver.importImage(request(imageId, disk(41))), 'IMAGE_EXISTS_DIFFERENT');
        await driver.deleteImage(imageId);
      });

      test('a clone needs a complete image and room for all of it', async () => {
        const missing = { volumeId: newVolume(), imageId: newImage(), sizeBytes: BigInt(MIB) };
        await refused(driver.cloneVolume(missing), 'IMAGE_NOT_FOUND');
        const { imageId } = await imported(disk(50));
        const small = { volumeId: newVolume(), imageId, sizeBytes: BigInt(MIB) };
        await refused(driver.cloneVolume(small), 'VOLUME_SHRINK');
        expect(await driver.statVolume(small.volumeId)).toBeNull();
        await driver.deleteImage(imageId);
      });
    });

    describe('imports that are refused leave nothing', () => {
      const qcow2 = () =>
        buildQcow2({ virtualBytes: 8 * MIB, clusters: new Map([0, 1, 70].map((n) => [n, noise(65536, 60 + n)])) });
      const backed = () => {
        const file = qcow2();
        file.writeBigUInt64BE(512n, 8);
        file.writeUInt32BE(11, 16);
        file.write('/etc/shadow', 512);
        return file;
      };
      const cut = () => qcow2().subarray(0, 5 * 65536 + 100);

      test.each<[string, () => Buffer, Partial<ImportRequest>, Reason, RegExp]>([
        ['a wrong checksum', () => disk(61), { sha256: 'ab'.repeat(32) }, 'IMAGE_CHECKSUM', /abab.* was announced/],
        ['a stream that is too short', () => disk(62), { sizeBytes: BigInt(9 * MIB) }, 'IMAGE_INVALID', /truncated/],
        ['a stream that is too long', () => disk(63), { sizeBytes: BigInt(MIB) }, 'IMAGE_INVALID', /longer/],
        ['a raw image of odd length', () => disk(64).subarray(0, 1000), {}, 'IMAGE_INVALID', /multiple of 512/],
        ['qcow2 announced as raw', qcow2, {}, 'IMAGE_INVALID', /is qcow2/],
        ['raw announced as qcow2', () => disk(65), { format: 'qcow2' }, 'IMAGE_INVALID', /not in qcow2 format/],
        ['a qcow2 file cut off', cut, { format: 'qcow2' }, 'IMAGE_INVALID', /truncated/],
        ['a qcow2 with a backing file', backed, { format: 'qcow2' }, 'IMAGE_INVALID', /backing file/],
      ])('%s', async (_what, make, more, reason, words) => {
        const imageId = newImage();
        const error = await refused(driver.importImage(request(imageId, make(), more)), reason);
        expect(error.message).toMatch(words);
        await isGone(imageId);
      });

      test('an image larger than the pool, with the numbers', async () => {
        const { totalBytes } = await driver.capacity();
        const imageId = newImage();
        const sizeBytes = totalBytes - (totalBytes % 512n) + 512n;
        const error = await refused(driver.importImage(request(imageId, disk(66), { sizeBytes })), 'POOL_FULL');
        expect(error.kind).toBe('exhausted');
        expect(error.message).toMatch(/[\d.]+ \wiB of [\d.]+ \wiB available/);
        await isGone(imageId);
      });

      test('an image whose data outgrows the room', async (context) => {
        if (harness.limitRoom === null)
          return context.skip('the room of a plain directory cannot be limited without a file system of its own');
        const lift = await harness.limitRoom(24 * MIB);
        const imageId = newImage();
        const data = Buffer.concat([noise(20 * MIB, 67), noise(20 * MIB, 68)]);
        try {
          const sizeBytes = BigInt(data.length);
          expect((await driver.capacity()).availableBytes).toBeLessThan(sizeBytes);
          await refused(driver.importImage(request(imageId, data)), 'POOL_FULL');
          await isGone(imageId);
        } finally {
          await lift();
        }
      });

      test('an aborted one, also while its sender is silent', async () => {
        const imageId = newImage();
        const abort = new AbortController();
        const source = stallAfter(disk(69).subarray(0, 5 * MIB), () =>
          setTimeout(() => abort.abort(new Error('enough')), 50),
        );
        const work = driver.importImage(request(imageId, disk(69), { source, signal: abort.signal }));
        const error = await refused(work, 'IMPORT_CANCELLED');
        expect(error.message).toContain('enough');
        await isGone(imageId);
      });

      test('one whose stream breaks off', async () => {
        const imageId = newImage();
        async function* source() {
          yield* streamOf(disk(70).subarray(0, 5 * MIB));
          throw new Error('connection reset');
        }
        await refused(driver.importImage(request(imageId, disk(70), { source: source() })), 'IMPORT_CANCELLED');
        await isGone(imageId);
      });

      test('a second one of the same image at the same time', async () => {
        const imageId = newImage();
        const abort = new AbortController();
        const { promise: stalled, resolve } = Promise.withResolvers<void>();
        const source = stallAfter(disk(71).subarray(0, MIB), resolve);
        const first = refusal(driver.importImage(request(imageId, disk(71), { source, signal: abort.signal })));
        await stalled;
        await refused(driver.importImage(request(imageId, disk(71))), 'IMAGE_BUSY');
        await refused(driver.deleteImage(imageId), 'IMAGE_BUSY');
        abort.abort();
        await first;
        await isGone(imageId);
      });
    });

    describe('an import that was killed', () => {
      test('is seen as half-made, hidden, and replaced by its repeat', async () => {
        const imageId = newImage();
        await harness.crashMidImport(imageId);
        expect(await driver.listImages()).toContainEqual({ imageId, complete: false });
        expect(await driver.statImage(imageId)).toBeNull();
        const clone = { volumeId: newVolume(), imageId, sizeBytes: BigInt(64 * MIB) };
        await refused(driver.cloneVolume(clone), 'IMAGE_NOT_FOUND');
        const data = disk(80);
        await driver.importImage(request(imageId, data));
        expect(await driver.listImages()).toContainEqual({ imageId, complete: true });
        const volumeId = newVolume();
        await driver.cloneVolume({ volumeId, imageId, sizeBytes: BigInt(data.length) });
        expect((await harness.readVolume(volumeId)).equals(data)).toBe(true);
        await driver.deleteVolume(volumeId);
        await driver.deleteImage(imageId);
      });

      test('is removed by deleteImage', async () => {
        const imageId = newImage();
        await harness.crashMidImport(imageId);
        await driver.deleteImage(imageId);
        await isGone(imageId);
      });
    });

    test('capacity is told in usable bytes', async () => {
      const { totalBytes, availableBytes } = await driver.capacity();
      expect(totalBytes).toBeGreaterThan(0n);
      expect(availableBytes).toBeLessThanOrEqual(totalBytes);
    });
  });
}
