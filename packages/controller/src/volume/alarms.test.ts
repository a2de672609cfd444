// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { volumeAlarms } from './alarms.ts';

it.each(['none', 'vm'] as const)('disks that open with the keys of %s are no alarm', (diskKeys) => {
  expect(volumeAlarms({ storage: { diskKeys } })).toEqual([]);
});

it('one Ceph key for all hosts is an alarm that says what to do', () => {
  const [alarm] = volumeAlarms({ storage: { diskKeys: 'shared' } });
  expect(alarm).toMatchObject({ code: 'CEPH_KEY_SHARED', severity: 'warning', subject: 'cluster' });
  expect(alarm?.hint).toContain('storage.identities: vm');
});
