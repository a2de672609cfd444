// SPDX-License-Identifier: Apache-2.0
import { link, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import { whyNotConfined } from '@busbar/native/confined';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DirConfig } from '../config.ts';
import { storageDriverConformance } from '../conformance.ts';
import { crashMidImport } from '../testing/crash-import.ts';
import { dirDriver } from './driver.ts';
import { publishOnce } from './files.ts';

/** Test directories are on whatever mount they are. */
const whyUnsafe = async () => '';

storageDriverConformance('dir', async () => {
  const path = await mkdtemp(join(tmpdir(), 'busbar-dir-'));
  const open = new Set<string>();
  const config = { driver: 'dir', path };
  const driver = dirDriver(DirConfig.parse(config), {
    clock: systemClock,
    whyUnsafe,
    isOpen: async (file) => open.has(file),
  });
  const fileOf = (id: Parameters<typeof driver.diskSource>[0]) => {
    const source = driver.diskSource(id);
    if (source.kind !== 'file') throw new Error('no file');
    return source.path;
  };
  return {
    driver,
    readVolume: (id) => readFile(fileOf(id)),
    async holdOpen(id) {
      open.add(fileOf(id));
      return async () => void open.delete(fileOf(id));
    },
    crashMidImport: (imageId) => crashMidImport(config, imageId),
    limitRoom: null,
    grainBytes: 65536,
    async stop() {
      await driver.close();
      expect(await readdir(join(path, 'temp'))).toEqual([]);
      await rm(path, { recursive: true, force: true });
    },
  };
});

test('a missing directory is not made: it may be a mount that failed', async () => {
  const driver = dirDriver(DirConfig.parse({ driver: 'dir', path: '/nonexistent/pool' }), {
    clock: systemClock,
    whyUnsafe: () => whyNotConfined('/nonexistent/pool'),
  });
  const volume = { volumeId: '00000000-0000-4000-8000-000000000001' as never, sizeBytes: 512n };
  await expect(driver.createVolume(volume)).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' });
});

describe('a directory', () => {
  let path: string;
  beforeEach(async () => {
    path = await mkdtemp(join(tmpdir(), 'busbar-dir-'));
  });
  afterEach(() => rm(path, { recursive: true, force: true }));

  test('a file that another controller published meanwhile is not replaced', async () => {
    await writeFile(join(path, 'theirs'), 'the guest was here');
    await writeFile(join(path, 'ours'), '');
    expect(await publishOnce(join(path, 'ours'), join(path, 'theirs'))).toBe(false);
    expect(await readFile(join(path, 'theirs'), 'utf8')).toBe('the guest was here');
    expect(await publishOnce(join(path, 'ours'), join(path, 'free'))).toBe(true);
    expect(await readdir(path)).toEqual(['free', 'theirs']);
  });

  test('sweeps deleted volumes that a crash left, and deletes one that nobody can have open', async () => {
    const driver = dirDriver(DirConfig.parse({ driver: 'dir', path }), {
      clock: systemClock,
      whyUnsafe,
      isOpen: async () => true,
    });
    await mkdir(join(path, 'temp'));
    await writeFile(join(path, 'temp', 'gone.volume.v1.0'), 'x');
    expect(await driver.listVolumes()).toEqual([]);
    expect(await readdir(join(path, 'temp'))).toEqual([]);
    const volumeId = 'v2' as never;
    await driver.createVolume({ volumeId, sizeBytes: 512n });
    await expect(driver.deleteVolume(volumeId)).rejects.toMatchObject({ reason: 'VOLUME_IN_USE' });
    expect(await driver.statVolume(volumeId)).not.toBeNull();
    await driver.deleteVolume(volumeId, { neverUsed: true });
    expect(await driver.statVolume(volumeId)).toBeNull();
    expect(await readdir(join(path, 'temp'))).toEqual([]);
    expect(await readdir(join(path, 'volumes'))).toEqual([]);
  });

  test('is not used when it is mounted so that links in it are followed', async () => {
    const driver = dirDriver(DirConfig.parse({ driver: 'dir', path }), {
      clock: systemClock,
      whyUnsafe: async () => 'it is mounted without nosymfollow',
    });
    await expect(driver.createVolume({ volumeId: 'v1' as never, sizeBytes: 512n })).rejects.toMatchObject({
      reason: 'STORAGE_UNAVAILABLE',
      message: 'it is mounted without nosymfollow',
    });
    expect(await readdir(path)).toEqual([]);
  });

  test('with something else in the place of a volume: what that is or points to stays as it is', async () => {
    const driver = dirDriver(DirConfig.parse({ driver: 'dir', path }), {
      clock: systemClock,
      whyUnsafe,
      isOpen: async (file) => Promise.reject(new Error(`${file} was opened`)),
    });
    const secret = join(path, 'secret');
    await writeFile(secret, 'of root');
    const planted = ['linked', 'second-name', 'directory'] as never[];
    for (const volumeId of planted) await driver.createVolume({ volumeId, sizeBytes: 512n });
    const at = (id: string) => join(path, 'volumes', `volume.${id}.raw`);
    for (const id of planted) await rm(at(id));
    await symlink(secret, at('linked'));
    await link(secret, at('second-name'));
    await mkdir(at('directory'));
    for (const id of planted) {
      await expect(driver.resizeVolume(id, 1_024n), id).rejects.toThrow(/regular file|has 2 names/);
    }
    expect(await readFile(secret, 'utf8')).toBe('of root');
    await driver.deleteVolume('linked' as never);
    expect(await readFile(secret, 'utf8')).toBe('of root');
    expect(await readdir(join(path, 'volumes'))).not.toContain('volume.linked.raw');
  });
});
