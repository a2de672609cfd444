// SPDX-License-Identifier: Apache-2.0
import { systemClock } from '@busbar/core/clock/clock';
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { VolumeId } from '@busbar/core/ids';
import { seededRandom } from '@busbar/core/random';
import { expect, test } from 'vitest';
import { storageDriverConformance } from '../conformance.ts';
import { newSimPool, type SimPool, simDriver } from './driver.ts';

storageDriverConformance('sim', async () => {
  const pool = newSimPool({ totalBytes: 1n << 30n });
  const driver = simDriver(pool, { clock: systemClock, random: seededRandom(1) });
  return {
    driver,
    async readVolume(id) {
      const volume = pool.volumes.get(id);
      const content = Buffer.alloc(Number(volume?.sizeBytes ?? 0n));
      const image = volume?.origin ? pool.images.get(volume.origin) : undefined;
      for (const [offset, data] of image?.content ?? []) data.copy(content, offset);
      return content;
    },
    async holdOpen(id) {
      pool.open.add(id);
      return async () => void pool.open.delete(id);
    },
    async crashMidImport(imageId) {
      const origin = { format: 'raw', streamBytes: 0n, sha256: '' };
      pool.images.set(imageId, {
        complete: false,
        virtualSizeBytes: 512n,
        allocatedBytes: 0n,
        origin,
        content: new Map(),
      });
    },
    async limitRoom(bytes) {
      const { totalBytes, availableBytes } = await driver.capacity();
      pool.totalBytes = totalBytes - availableBytes + BigInt(bytes);
      return async () => {
        pool.totalBytes = totalBytes;
      };
    },
    grainBytes: 65536,
    stop: () => driver.close(),
  };
});

const VOLUME = { volumeId: '00000000-0000-4000-8000-000000000001' as VolumeId, sizeBytes: 512n };

function simulated(settings: Partial<SimPool>, seed = 1) {
  const clock = new VirtualClock();
  const pool = newSimPool(settings);
  return { clock, pool, driver: simDriver(pool, { clock, random: seededRandom(seed) }) };
}

test('latency is virtual time and repeats with the seed', async () => {
  const trace = async () => {
    const { clock, driver } = simulated({ latencyMs: { min: 5, max: 50 } }, 7);
    const times: number[] = [];
    for (let n = 0; n < 3; n++) {
      let done = false;
      void driver.createVolume(VOLUME).then(() => (done = true));
      await clock.advanceUntil(() => done, 1000);
      times.push(clock.nowMs());
    }
    return times;
  };
  const first = await trace();
  expect(first[0]).toBeGreaterThanOrEqual(5);
  expect(await trace()).toEqual(first);
});

test('faults strike the named call so many times, before or after the work', async () => {
  const { driver, pool } = simulated({});
  pool.faults.push({ call: 'createVolume', what: 'storageUnavailable', times: 1 });
  pool.faults.push({ call: 'createVolume', what: 'storageUnavailable', times: 1, afterwards: true });
  await expect(driver.createVolume(VOLUME)).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' });
  expect(await driver.listVolumes()).toEqual([]);
  await expect(driver.createVolume(VOLUME)).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' });
  expect(await driver.listVolumes()).toEqual([VOLUME.volumeId]);
  await driver.createVolume(VOLUME);
});

test('a hang ends at the deadline, or with close', async () => {
  const { clock, driver, pool } = simulated({ callDeadlineMs: 3000 });
  pool.faults.push({ what: 'hang', times: 2 });
  const hung = driver.capacity().catch((error: unknown) => error);
  await clock.advance(3000);
  expect(await hung).toMatchObject({ kind: 'timeout', reason: 'STORAGE_TIMEOUT' });
  const closed = driver.capacity().catch((error: unknown) => error);
  await clock.advance(10);
  await driver.close();
  expect(await closed).toMatchObject({ reason: 'STORAGE_UNAVAILABLE' });
  await expect(driver.capacity()).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' });
});

test('a deletion that is cut off leaves a volume that is half-made for good, until it is deleted again', async () => {
  const { driver, pool } = simulated({});
  await driver.createVolume(VOLUME);
  pool.faults.push({ call: 'deleteVolume', what: 'storageFailed', times: 1, half: true });
  await expect(driver.deleteVolume(VOLUME.volumeId)).rejects.toMatchObject({ reason: 'STORAGE_FAILED' });
  expect(await driver.statVolume(VOLUME.volumeId)).toBeNull();
  expect(await driver.listVolumes()).toEqual([VOLUME.volumeId]);
  await expect(driver.createVolume(VOLUME)).rejects.toMatchObject({ reason: 'VOLUME_EXISTS_DIFFERENT' });
  await driver.deleteVolume(VOLUME.volumeId);
  expect(await driver.listVolumes()).toEqual([]);
});
