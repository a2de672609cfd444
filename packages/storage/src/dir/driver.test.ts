// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import { expect, test } from 'vitest';
import { DirConfig } from '../config.ts';
import { storageDriverConformance } from '../conformance.ts';
import { crashMidImport } from '../testing/crash-import.ts';
import { dirDriver } from './driver.ts';

storageDriverConformance('dir', async () => {
  const path = await mkdtemp(join(tmpdir(), 'busbar-dir-'));
  const open = new Set<string>();
  const config = { driver: 'dir', path };
  const driver = dirDriver(DirConfig.parse(config), { clock: systemClock, isOpen: async (file) => open.has(file) });
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
  const driver = dirDriver(DirConfig.parse({ driver: 'dir', path: '/nonexistent/pool' }), { clock: systemClock });
  const volume = { volumeId: '00000000-0000-4000-8000-000000000001' as never, sizeBytes: 512n };
  await expect(driver.createVolume(volume)).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' });
});
