// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { VolumeId } from '@busbar/core/ids';
import { silentLogger } from '@busbar/core/log';
import { seededRandom } from '@busbar/core/random';
import { beforeEach, describe, expect, test } from 'vitest';
import { RbdConfig } from '../config.ts';
import { cephError, FakeCeph } from '../testing/fake-ceph.ts';
import { rbdDriver } from './driver.ts';

const ID = '00000000-0000-4000-8000-000000000001' as VolumeId;
const NAME = `volume.${ID}`;
const VOLUME = { volumeId: ID, sizeBytes: 4096n };
const COMPLETE = { 'busbar.volume': 'complete', 'busbar.origin': '' };
const GUEST = { address: '10.0.0.9:0/77', client: 'client.77' };
const ORPHAN = { address: '10.0.0.8:0/66', client: 'client.66' };
const MINUTE_MS = 60_000;

let ceph: FakeCeph;
let clock: VirtualClock;
let warnings: object[];
let seed = 1;
beforeEach(() => {
  ceph = new FakeCeph();
  clock = new VirtualClock();
  warnings = [];
});

type Before = Parameters<FakeCeph['client']>[0];
function controller(before?: Before) {
  const config = RbdConfig.parse({
    driver: 'rbd',
    pool: 'p',
    cephConf: '/c',
    user: 'u',
    keyring: '/k',
    spoolDir: '/s',
  });
  const logger = { ...silentLogger, warn: (fields: object) => void warnings.push(fields) };
  return rbdDriver(config, { clock, logger, random: seededRandom(seed++), client: ceph.client(before) });
}

/** A controller that stands still before its n-th call of that method (0 = the first) until `thaw`. */
function frozenBefore(method: string, n = 0) {
  const { promise: thawed, resolve: thaw } = Promise.withResolvers<void>();
  const { promise: stands, resolve: stand } = Promise.withResolvers<void>();
  let seen = 0;
  const driver = controller(async (call) => {
    if (call.method !== method || seen++ !== n) return;
    stand();
    await thawed;
  });
  return { driver, stands, thaw };
}

/** The next leader makes the volume, and a guest writes to it. */
async function madeByTheNextLeader() {
  await controller().createVolume(VOLUME);
  const image = ceph.images.get(NAME);
  if (image === undefined) throw new Error('not made');
  image.data = 'the guest was here';
  image.watchers = [GUEST];
}
function expectGuestUntouched() {
  expect(ceph.images.get(NAME)).toMatchObject({ data: 'the guest was here', watchers: [GUEST] });
  expect(ceph.fenced).toEqual([]);
}

describe('a controller that stood still while another made the volume', () => {
  test.each([
    ['create', 0],
    ['rename', 0],
    ['inspect', 1],
    ['rename', 0, 'hides'],
  ] as const)('before %s (%i) touches nothing of it and succeeds', async (method, n, hides?: 'hides') => {
    ceph.hidesTakenNames = hides !== undefined;
    const late = frozenBefore(method, n);
    const work = late.driver.createVolume(VOLUME);
    await late.stands;
    await madeByTheNextLeader();
    late.thaw();
    await work;
    expectGuestUntouched();
    expect(ceph.names()).toEqual([NAME]);
  });

  test.each([
    ['inspect', 1],
    ['rename', 0],
    ['inspect', 2],
  ] as const)('after it saw a half-made one, before %s (%i): neither', async (method, n) => {
    ceph.put(NAME, {});
    const late = frozenBefore(method, n);
    const work = late.driver.createVolume(VOLUME);
    await late.stands;
    await madeByTheNextLeader();
    late.thaw();
    await work;
    expectGuestUntouched();
    await clock.advance(11 * MINUTE_MS);
    await controller().listVolumes();
    expect(ceph.names()).toEqual([NAME]);
  });

  test.each([false, true])('refuses when the other one is different (its rename says success: %s)', async (hides) => {
    ceph.hidesTakenNames = hides;
    const late = frozenBefore('rename');
    const work = late.driver.createVolume({ ...VOLUME, sizeBytes: 8192n }).catch((error: unknown) => error);
    await late.stands;
    await madeByTheNextLeader();
    late.thaw();
    expect(await work).toMatchObject({ reason: 'VOLUME_EXISTS_DIFFERENT' });
    expectGuestUntouched();
    expect(ceph.names()).toEqual([NAME]);
  });

  test.each(['watchers', 'monCommand'])('before %s fences no guest', async (method) => {
    ceph.put(NAME, {}, { watchers: method === 'watchers' ? [] : [ORPHAN] });
    const late = frozenBefore(method);
    const work = late.driver.createVolume(VOLUME);
    await late.stands;
    ceph.images.delete(NAME);
    await madeByTheNextLeader();
    late.thaw();
    await work;
    expect(ceph.images.get(NAME)).toMatchObject({ data: 'the guest was here', watchers: [GUEST] });
    expect(ceph.fenced).not.toContain(GUEST.address);
  });

  test('while deleting half-made remains does not delete what became of them', async () => {
    ceph.put(NAME, {});
    const late = frozenBefore('rename');
    const work = late.driver.deleteVolume(ID).catch((error: unknown) => error);
    await late.stands;
    await madeByTheNextLeader();
    late.thaw();
    expect(await work).toMatchObject({ reason: 'VOLUME_IN_USE' });
    expectGuestUntouched();
  });
});

describe('making', () => {
  test('a rename of which only the answer is lost is success for the repeat', async () => {
    const pool = ceph.client();
    const driver = controller(async ({ method, args }) => {
      if (method !== 'rename') return;
      await pool.call('rename', args as { from: string; to: string });
      throw cephError('ETIMEDOUT', 'timeout');
    });
    await expect(driver.createVolume(VOLUME)).rejects.toMatchObject({ kind: 'timeout' });
    await driver.createVolume(VOLUME);
    expect(ceph.names()).toEqual([NAME]);
  });

  test('one that fails leaves nothing, one that gets no answer leaves it to the sweep', async () => {
    const full = controller(({ method }) => {
      if (method === 'create') throw cephError('ENOSPC', 'exhausted');
    });
    await expect(full.createVolume(VOLUME)).rejects.toMatchObject({ kind: 'exhausted' });
    expect(ceph.names()).toEqual([]);
    const cut = controller(({ method }) => {
      if (method === 'rename') throw cephError('ETIMEDOUT', 'timeout');
    });
    await expect(cut.createVolume(VOLUME)).rejects.toMatchObject({ kind: 'timeout' });
    expect(ceph.names()).toEqual([expect.stringMatching(`^making\\.${NAME}\\.`)]);
    expect(await controller().listVolumes()).toEqual([]);
    expect(ceph.names()).toHaveLength(1);
    await clock.advance(11 * MINUTE_MS);
    const image = [...ceph.images.values()][0];
    if (image !== undefined) image.watchers = [GUEST];
    await controller().listVolumes();
    expect(ceph.names()).toHaveLength(1);
    if (image !== undefined) image.watchers = [];
    await controller().listVolumes();
    expect(ceph.names()).toEqual([]);
  });

  test('a temporary name that a cut rename left on the final volume is not swept', async () => {
    await controller().createVolume(VOLUME);
    const image = ceph.images.get(NAME);
    const madeAs = image?.info.metadata['busbar.made_as'] ?? '';
    expect(madeAs).toMatch(/^making\./);
    if (image !== undefined) ceph.images.set(madeAs, image);
    await clock.advance(11 * MINUTE_MS);
    await controller().listVolumes();
    expect(ceph.names()).toEqual([madeAs, NAME].sort());
  });

  test('what a volume being deleted has left is not made anew', async () => {
    ceph.put(NAME, { 'busbar.volume': 'deleting' });
    await expect(controller().createVolume(VOLUME)).rejects.toMatchObject({ reason: 'VOLUME_EXISTS_DIFFERENT' });
  });
});

describe('deleting', () => {
  test('is never called off once it began: a removal that failed leaves no complete volume', async () => {
    ceph.put(NAME, COMPLETE);
    const failing = controller(({ method }) => {
      if (method === 'remove') throw cephError('ETIMEDOUT', 'timeout');
    });
    await expect(failing.deleteVolume(ID)).rejects.toMatchObject({ kind: 'timeout' });
    const driver = controller();
    expect(await driver.statVolume(ID)).toBeNull();
    expect(await driver.listVolumes()).toEqual([ID]);
    await expect(driver.resizeVolume(ID, 8192n)).rejects.toMatchObject({ reason: 'VOLUME_NOT_FOUND' });
    await driver.deleteVolume(ID);
    expect(ceph.names()).toEqual([]);
  });

  test('is refused while it is open, and the volume stays complete', async () => {
    ceph.put(NAME, COMPLETE, { watchers: [GUEST] });
    await expect(controller().deleteVolume(ID)).rejects.toMatchObject({ reason: 'VOLUME_IN_USE' });
    expect(await controller().statVolume(ID)).toMatchObject({ sizeBytes: 4096n });
    expect(ceph.fenced).toEqual([]);
  });

  test('of one that no VM ever had fences whoever has it open, and puts it aside', async () => {
    const image = ceph.put(NAME, COMPLETE, { watchers: [GUEST] });
    let done = false;
    const work = controller()
      .deleteVolume(ID, { neverUsed: true })
      .then(() => (done = true));
    await clock.advanceUntil(() => done, MINUTE_MS);
    await work;
    expect(new Set(ceph.fenced)).toEqual(new Set([GUEST.address]));
    expect(ceph.names()).toEqual([expect.stringMatching(`^gone\\.${NAME}\\.`)]);
    await controller().deleteVolume(ID, { neverUsed: true });
    image.watchers = [];
    await controller().listVolumes();
    expect(ceph.names()).toEqual([]);
  });
});

describe('the sweep', () => {
  test('goes on after one that cannot be removed, and says so', async () => {
    for (const n of [1, 2, 3]) ceph.put(`lost.volume.v${n}.1700000000000`, {});
    const driver = controller(({ method, args }) => {
      if (method !== 'remove') return;
      if (args.name === 'lost.volume.v1.1700000000000') throw cephError('ENOTEMPTY');
      if (args.name === 'lost.volume.v2.1700000000000') throw cephError('EBUSY', 'precondition');
    });
    expect(await driver.listVolumes()).toEqual([]);
    expect(ceph.names()).toEqual(['lost.volume.v1.1700000000000', 'lost.volume.v2.1700000000000']);
    expect(warnings).toEqual([expect.objectContaining({ image: 'lost.volume.v1.1700000000000' })]);
  });

  test('gives a complete volume its name back', async () => {
    ceph.put(`lost.${NAME}.1700000000000.abcdef01`, COMPLETE, { data: 'kept' });
    await controller().listVolumes();
    expect(ceph.images.get(NAME)).toMatchObject({ data: 'kept' });
  });
});
