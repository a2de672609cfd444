// SPDX-License-Identifier: Apache-2.0
import { chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Epoch, VmId } from '@busbar/core/ids';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DEFAULT_UID_POOL, isInPool } from '../config/uid-pool.ts';
import { VmUids } from './uids.ts';

/** Goal: no two QEMUs that live have one user id, and none gets that of a former one while something of it is left. */
const VM = '6695eb01-f6a4-4304-89aa-000000000001' as VmId;
const SMALL = { first: 70_000, count: 3 };
let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'busbar-uids-'));
  for (const dir of ['proc/sysvipc', 'tmp', 'nvram']) mkdirSync(join(root, dir), { recursive: true });
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const process_ = (pid: number, ...ids: number[]) => {
  mkdirSync(join(root, `proc/${pid}`), { recursive: true });
  writeFileSync(join(root, `proc/${pid}/status`), `Name:\tx\nUid:\t${ids.join('\t')}\nGid:\t0\t0\t0\t0\n`);
};
const uids = (pool = SMALL) =>
  new VmUids(pool, { procRoot: join(root, 'proc'), openDirs: [join(root, 'tmp')], ownDirs: [join(root, 'nvram')] });
const take = (from: VmUids, epoch: number) => from.take(VM, BigInt(epoch) as Epoch);

describe('a user id for a QEMU', () => {
  it('is of the pool, and another for another start of the same VM', async () => {
    const all = uids(DEFAULT_UID_POOL);
    const [first, second] = [await take(all, 1), await take(all, 2)];
    expect(isInPool(DEFAULT_UID_POOL, first) && isInPool(DEFAULT_UID_POOL, second)).toBe(true);
    expect(first).not.toBe(second);
  });

  it('is nobody else’s: neither of a start under way, nor of a process by any of its ids', async () => {
    process_(10, 0, 0, 70_001, 0);
    const all = uids();
    const [one, two] = [await take(all, 1), await take(all, 2)];
    expect(new Set([one, two])).toEqual(new Set([70_000, 70_002]));
    await expect(take(all, 3)).rejects.toMatchObject({ reason: 'NO_FREE_UID' });
    all.started(one);
    expect(await take(all, 3)).toBe(one);
  });

  it('is known to be in use by an agent that was restarted', async () => {
    const one = await take(uids(), 1);
    process_(11, one, one, one, one);
    expect(await take(uids(), 1)).not.toBe(one);
  });

  it.for(['tmp', 'nvram'])('is not used while a file of its former owner is in %s', async (dir, context) => {
    if (process.getuid?.() !== 0) return context.skip('only root gives files away');
    const one = await take(uids(), 1);
    writeFileSync(join(root, dir, 'left'), '');
    chownSync(join(root, dir, 'left'), one, one);
    expect(await take(uids(), 1)).not.toBe(one);
  });

  it('is not used while shared memory of its former owner is left', async () => {
    const one = await take(uids(), 1);
    const header = 'key shmid perms size cpid lpid nattch uid gid cuid cgid';
    writeFileSync(join(root, 'proc/sysvipc/shm'), `${header}\n0 1 600 1 1 1 0 0 0 ${one} 0\n`);
    expect(await take(uids(), 1)).not.toBe(one);
  });

  it('is given to nobody when it cannot be seen who lives', async () => {
    mkdirSync(join(root, 'proc/12/status'), { recursive: true });
    await expect(take(uids(), 1)).rejects.toThrow('EISDIR');
  });
});
