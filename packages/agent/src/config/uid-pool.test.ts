// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { DEFAULT_UID_POOL, ownerInPool, UidPoolSchema } from './uid-pool.ts';

const NONE = { passwd: '', group: '', subuid: '', subgid: '' };
const POOL = { first: 200_000, count: 10_000 };

describe('a pool of user ids', () => {
  it.each([
    [{ first: 65_535, count: 2_000 }, 'of people and services'],
    [{ first: 200_000, count: 10 }, 'of a handful'],
    [{ first: 4_294_960_000, count: 8_000 }, 'beyond what a user id can be'],
    [{ first: 200_000.5, count: 10_000 }, 'of halves'],
  ])('%j, %s, is refused', (pool, _why) => {
    expect(UidPoolSchema.safeParse(pool).success).toBe(false);
  });

  it('takes the default', () => {
    expect(UidPoolSchema.parse(DEFAULT_UID_POOL)).toEqual(DEFAULT_UID_POOL);
  });

  it.each([
    [{ passwd: 'root:x:0:0::/:\nann:x:200000:100::/:\n' }, 'ann (200000, /etc/passwd)'],
    [{ group: 'plc:x:209999:\n' }, 'plc (209999, /etc/group)'],
    [{ subuid: 'ann:100000:65536\nbob:165536:65536\n' }, 'bob (165536 to 231071, /etc/subuid)'],
    [{ subgid: 'bob:205000:1\n' }, 'bob (205000 to 205000, /etc/subgid)'],
    [{ passwd: 'ann:x:199999:100::/:\nbob:x:210000:1::/:\n+::::::\n', subuid: 'ann:210000:65536\nx\n' }, null],
  ])('that %j gives away already is told: %s', (files, owner) => {
    expect(ownerInPool(POOL, { ...NONE, ...files })).toBe(owner);
  });
});
