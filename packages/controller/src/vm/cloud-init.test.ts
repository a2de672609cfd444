// SPDX-License-Identifier: Apache-2.0
import { silentLogger } from '@busbar/core/log';
import type { Role } from '@busbar/pki/role';
import { openSeal, SEAL_KEY_BYTES } from '@busbar/pki/seal';
import { VmRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import {
  CreateVmRequest,
  type CreateVmResponse,
  type GetVmResponse,
  type ListVmsResponse,
  UpdateVmRequest,
  type UpdateVmResponse,
} from '@busbar/proto/gen/busbar/v1/vm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import { cloudInitFor, cloudInitReader, sealCloudInit } from './cloud-init.ts';
import { hardwareDigest } from './domain.ts';

/** Where the passwords in a VM's cloud-init data are, and who sees them. */
const MARKER = 'correct-horse-battery';
const data = { userData: `#cloud-config\npassword: ${MARKER}\n`, networkConfig: `wifi: ${MARKER}\n` };
const shown = { ...data, redacted: false };
const redacted = { userData: '', networkConfig: '', redacted: true };
const bare = { cpu: { vcpus: 1 }, memoryBytes: 64n * 1024n ** 2n };

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const create = (cloudInit: object | undefined, more: object = {}) =>
  rig.call<CreateVmResponse>(
    'VmService',
    'createVm',
    CreateVmRequest.fromPartial({ name: 'relay', spec: { ...bare, ...(cloudInit && { cloudInit }) }, ...more }),
  );
const update = (cloudInit: object | undefined, updateMask: string[], more: object = {}) =>
  rig.call<UpdateVmResponse>(
    'VmService',
    'updateVm',
    UpdateVmRequest.fromPartial({
      vm: 'relay',
      spec: { ...bare, ...(cloudInit && { cloudInit }) },
      updateMask,
      ...more,
    }),
  );
const get = async (role: Role = 'admin') =>
  (await rig.call<GetVmResponse>('VmService', 'getVm', { vm: 'relay' }, testCaller(role))).vm?.spec?.cloudInit;
const everything = async () =>
  JSON.stringify((await rig.run(rig.api.store.list('busbar/'))).value.map(Object.values), plain);
const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value);
const record = () => rig.view.tables.vm.find('relay')?.record as VmRecord;

describe('cloud-init data', () => {
  it('are nowhere in the store, also not in the digest of a repeated request', async () => {
    const answer = await create(data, { requestId: 'one' });
    expect(answer.vm?.spec?.cloudInit).toEqual(shown);
    expect(await everything()).not.toContain(MARKER);
    expect(record().spec?.cloudInit).toBeUndefined();
    expect(record().sealedCloudInit).toMatch(/^sealed\.1\./);
    const again = await create(data, { requestId: 'one' });
    expect(again.vm?.meta?.id).toBe(answer.vm?.meta?.id);
    await expect(create({ ...data, userData: 'other' }, { requestId: 'one' })).rejects.toMatchObject({
      reason: 'REQUEST_ID_REUSED',
    });
  });

  it('are shown to operators and admins, and to viewers only that there are some', async () => {
    await create(data);
    expect(await get('admin')).toEqual(shown);
    expect(await get('operator')).toEqual(shown);
    expect(await get('viewer')).toEqual(redacted);
    const request = { pageSize: 0, pageToken: '', host: '' };
    const list = await rig.call<ListVmsResponse>('VmService', 'listVms', request, testCaller('viewer'));
    expect(list.vms[0]?.spec?.cloudInit).toEqual(redacted);
  });

  it('stay when an update does not name them, or names them redacted', async () => {
    await create(data);
    await update(undefined, ['spec.memoryBytes']);
    expect(await get()).toEqual(shown);
    expect((await update(redacted, [])).vm?.spec?.cloudInit).toEqual(shown);
    expect((await update({ ...data, userData: 'new' }, ['spec.cloudInit'])).vm?.spec?.cloudInit?.userData).toBe('new');
    await update(undefined, ['spec.cloudInit']);
    expect(await get()).toBeUndefined();
    expect(record().sealedCloudInit).toBe('');
  });

  it('cannot be redacted where there are none', async () => {
    const refusal = { reason: 'INVALID_REQUEST', fields: [{ field: 'spec.cloudInit.redacted' }] };
    await expect(create(redacted)).rejects.toMatchObject(refusal);
    await create(undefined);
    await expect(update(redacted, ['spec.cloudInit'])).rejects.toMatchObject(refusal);
    await expect(update({ ...data, redacted: true }, ['spec.cloudInit'])).rejects.toMatchObject({
      fields: [{ field: 'spec.cloudInit', expected: 'either data or redacted' }],
    });
  });

  it('are in no error, whichever field of the request is wrong', async () => {
    const wrong: object[] = [
      { userData: MARKER.repeat(4_000), networkConfig: '' },
      { ...data, redacted: true },
      { userData: { nested: MARKER }, networkConfig: '' },
      { userData: data.userData, networkConfig: [MARKER] },
    ];
    for (const cloudInit of wrong) {
      const request = { ...CreateVmRequest.fromPartial({ name: 'relay' }), spec: { cloudInit, ...bare } };
      const error = await rig.call('VmService', 'createVm', request).catch((e: unknown) => e as Error & { fields: [] });
      expect(error).toMatchObject({ reason: 'INVALID_REQUEST' });
      expect(`${JSON.stringify(error)} ${String(error)}`).not.toContain(MARKER);
    }
    // The whole spec is the wrong value here; its first 80 characters would be the data.
    const error = await rig.call('VmService', 'createVm', { name: [{ ...data }] }).catch((e: unknown) => e as Error);
    expect(String(error)).toMatch(/name is .*not shown here/);
  });

  it('change what restart-needed is told by, without being guessable from it', async () => {
    await create(data);
    const before = hardwareDigest(record());
    await update({ ...data, userData: 'new' }, ['spec.cloudInit']);
    const after = record();
    expect(hardwareDigest(after)).not.toBe(before);
    // With another seal key, the same data give another digest.
    const elsewhere = openSeal(Buffer.alloc(SEAL_KEY_BYTES, 7));
    const same = { userData: 'new', networkConfig: data.networkConfig, redacted: false };
    const sealedCloudInit = sealCloudInit(elsewhere, after.meta?.id ?? '', same);
    expect(hardwareDigest({ ...after, sealedCloudInit })).not.toBe(hardwareDigest(after));
  });

  it('of another VM, or of another seal key, do not open: shown as redacted, never started without, told once', () => {
    const seal = openSeal(Buffer.alloc(SEAL_KEY_BYTES));
    const stolen = VmRecord.fromPartial({ meta: { id: 'b' }, sealedCloudInit: sealCloudInit(seal, 'a', shown) });
    expect(cloudInitFor(seal, 'admin')(stolen)).toEqual(redacted);
    const told: string[] = [];
    const reader = cloudInitReader(seal, { ...silentLogger, error: (_, message) => void told.push(message) });
    expect([reader(stolen), reader(stolen)]).toEqual([null, null]);
    expect(told).toEqual(['VM cannot be started without its cloud-init data']);
  });
});
