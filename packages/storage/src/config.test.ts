// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import { StorageConfig } from './config.ts';
import { openStorage } from './open.ts';

const rbd = {
  driver: 'rbd',
  pool: 'busbar',
  cephConf: '/etc/ceph/ceph.conf',
  user: 'busbar-controller',
  keyring: '/etc/busbar/ceph/controller.keyring',
  spoolDir: '/var/lib/busbar/spool',
};

test('defaults fill in what is left out', () => {
  expect(StorageConfig.parse(rbd)).toMatchObject({ deadlines: { callMs: 12_000 }, timeouts: { osdOpS: 5 } });
  expect(StorageConfig.parse({ driver: 'dir', path: '/srv/busbar' })).toMatchObject({ deadlines: { callMs: 20_000 } });
});

test.each([
  ['an option in a path', { ...rbd, cephConf: '/etc/ceph.conf:mon_host=evil' }],
  ['a way out of a path', { ...rbd, spoolDir: '/var/../etc' }],
  ['a relative path', { ...rbd, keyring: 'keyring' }],
  ['an option as a pool', { ...rbd, pool: '--conf=/tmp/x' }],
  ['a key in the configuration', { ...rbd, key: 'AQ==' }],
  ['an unknown driver', { driver: 'nfs', path: '/srv' }],
])('%s is refused', (_what, config) => {
  expect(StorageConfig.safeParse(config).success).toBe(false);
});

test('each driver opens without touching its storage', async () => {
  for (const config of [rbd, { driver: 'dir', path: '/nonexistent' }, { driver: 'sim' }]) {
    const driver = openStorage(config);
    expect(driver.kind).toBe(config.driver);
    await driver.close();
  }
});
