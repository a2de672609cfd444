// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import type { Epoch, VmId } from '@busbar/core/ids';
import { describe, expect, it } from 'vitest';
import { accessCaps, accessEntity, controllerMonCaps } from './access.ts';

const DISK = { name: 'volume.a', id: 'ab12', parentId: null };

describe('the caps of a VM', () => {
  it('name the objects of its disks, and those of their images for reading', () => {
    const [, , , osd] = accessCaps('busbar', [DISK, { name: 'volume.b', id: 'cd34', parentId: 'ef56' }]);
    const grants = osd?.split(', ') ?? [];
    const writing = grants.filter((grant) => grant.startsWith('allow rwx ')).map((grant) => grant.split(' ').at(-1));
    expect(writing).toEqual(
      ['ab12', 'cd34'].flatMap((id) => [`rbd_header.${id}`, `rbd_object_map.${id}`, `rbd_data.${id}.`]),
    );
    expect(grants.filter((grant) => grant.endsWith('ef56'))).toEqual([
      'allow r class-read pool=busbar object_prefix rbd_header.ef56',
      'allow r class-read pool=busbar object_prefix rbd_object_map.ef56',
    ]);
    expect(grants.every((grant) => / pool=busbar object_prefix rbd_/.test(grant))).toBe(true);
  });

  it('of a disk that is gone let QEMU ask for it, and no more', () => {
    const [, , , osd] = accessCaps('busbar', [{ ...DISK, id: null, parentId: 'ef56' }]);
    expect(osd?.split(', ').slice(2)).toEqual([
      'allow r class-read pool=busbar object_prefix rbd_id.volume.a',
      'allow r pool=busbar object_prefix volume.a.rbd',
    ]);
  });

  it.each([
    ['a pool', 'b pool=c', DISK],
    ['an image', 'busbar', { ...DISK, name: 'volume.a, allow *' }],
    ['an id', 'busbar', { ...DISK, id: '' }],
    ['an id of the parent', 'busbar', { ...DISK, parentId: 'a b' }],
  ])('are not made of %s that could be read as more', (_what, pool, disk) => {
    expect(() => accessCaps(pool, [disk])).toThrow();
  });

  it('belong to one start', () => {
    expect(accessEntity('v' as VmId, 7n as Epoch)).toBe('client.busbar-vm.v.7');
  });
});

describe('the caps of the controllers', () => {
  it('are those in the operations guide, word for word', () => {
    const guide = readFileSync(new URL('../../../../docs/operations.md', import.meta.url), 'utf8');
    expect(guide).toContain(`\n${controllerMonCaps('busbar')}\n`);
  });
});
