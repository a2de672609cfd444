// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { CreateNetworkRequest } from '@busbar/proto/gen/busbar/v1/network';
import { CreateVmRequest, DeleteVmRequest, RunPolicy, UpdateVmRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import { isEssential, WHEN_NEARLY_FULL } from './essential.ts';
import { WriteBudget } from './write-budget.ts';

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const GIB = 1024 ** 3;
const full = (inUse: number, file = inUse) => {
  rig.fill = { ...rig.fill, store: { inUseBytes: Math.round(inUse * GIB), fileBytes: Math.round(file * GIB) } };
};
const spec = (userData = '') => ({
  cpu: { vcpus: 1 },
  memoryBytes: 1024n ** 3n,
  runPolicy: RunPolicy.STOPPED,
  cloudInit: { userData },
});
const createVm = (name: string, caller = testCaller()) =>
  rig.call('VmService', 'createVm', CreateVmRequest.fromPartial({ name, spec: spec() }), caller);
const updateVm = (vm: string, userData: string, caller = testCaller()) =>
  rig.call(
    'VmService',
    'updateVm',
    UpdateVmRequest.fromPartial({ vm, updateMask: ['spec.cloudInit'], spec: spec(userData) }),
    caller,
  );

describe('what is written while the store is nearly full', () => {
  it('is decided for every method that changes something', () => {
    const mutating = rig.services.flatMap(({ definition, methods }) =>
      Object.entries(definition.methods)
        .filter(([key]) => methods[key]?.access !== 'read')
        .map(([, rpc]) => `${definition.fullName}/${rpc.name}`),
    );
    // A console changes nothing in the store.
    expect(Object.keys(WHEN_NEARLY_FULL).sort()).toEqual(
      mutating.filter((method) => method !== 'busbar.v1.VmService/OpenConsole').sort(),
    );
    expect(isEssential('busbar.v1.VmService/StopVm')).toBe(true);
    for (const method of ['', 'toString', '__proto__', 'busbar.v1.VmService/New'])
      expect(isEssential(method)).toBe(false);
  });

  it('is what saves the plant: from 70 % on nothing new, and VMs are still stopped, started and deleted', async () => {
    await createVm('old');
    await rig.finish();
    full(1.39);
    await createVm('just');
    await rig.finish();
    full(1.41);
    await expect(createVm('late')).rejects.toMatchObject({
      kind: 'exhausted',
      reason: 'STORE_NEARLY_FULL',
      message:
        'the cluster store uses 1.41 GiB of its quota of 2.00 GiB (its file has 1.41 GiB); from 70 % on only what keeps ' +
        'the plant running is written, and CreateVm is not',
      hint: expect.stringContaining('delete what nobody needs'),
    });
    await expect(updateVm('old', 'x')).rejects.toMatchObject({ reason: 'STORE_NEARLY_FULL' });
    const network = CreateNetworkRequest.fromPartial({ name: 'n', spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } });
    await expect(rig.call('NetworkService', 'createNetwork', network)).rejects.toMatchObject({
      reason: 'STORE_NEARLY_FULL',
    });
    await rig.call('VmService', 'startVm', { vm: 'old', validateOnly: false, requestId: '' });
    await rig.finish();
    await rig.call('VmService', 'stopVm', { vm: 'old', force: true, timeoutMs: 0, validateOnly: false, requestId: '' });
    await rig.finish();
    await rig.call('VmService', 'deleteVm', DeleteVmRequest.fromPartial({ vm: 'just' }));
    await rig.finish();
    full(0.2);
    await createVm('late');
  });

  it('is judged by the file as well, which the quota is compared with, though later', async () => {
    full(0.2, 1.8);
    await createVm('a');
    full(0.2, 1.91);
    await expect(createVm('b')).rejects.toMatchObject({ reason: 'STORE_NEARLY_FULL' });
  });

  it('is everything while nobody can tell: then the store itself refuses', async () => {
    rig.fill = { ...rig.fill, store: null };
    await createVm('a');
  });
});

describe('a caller who writes over one record again and again', () => {
  it('is stopped by his budget, is told so, and keeps nobody else from working; dry runs cost nothing', async () => {
    await createVm('fill');
    await rig.finish();
    const quotaBytes = 128 * 1024 ** 2;
    rig.budget = new WriteBudget(rig.clock, quotaBytes, 1);
    const greedy = testCaller('operator', 'client/greedy');
    let reason = '';
    let calls = 0;
    for (; reason === '' && calls < 500; calls++) {
      await updateVm('fill', '#'.repeat(60_000), greedy).catch((error: { reason: string }) => {
        reason = error.reason;
      });
    }
    expect(reason).toBe('WRITE_BUDGET_SPENT');
    // One controller has a sixth of the quota, and one caller three quarters of that.
    const written = (await rig.api.store.usage()).fileBytes;
    expect(written).toBeLessThan(quotaBytes / 8 + 1024 ** 2);
    expect(written).toBeGreaterThan(quotaBytes / 10);
    await createVm('honest', testCaller('operator', 'client/honest'));
    const dry = UpdateVmRequest.fromPartial({
      vm: 'fill',
      updateMask: ['spec.cloudInit'],
      spec: spec('#'.repeat(60_000)),
      validateOnly: true,
    });
    await rig.call('VmService', 'updateVm', dry, greedy);
    await rig.clock.advance(60_000);
    await updateVm('fill', '#', greedy);
  });
});

it('no handler writes past the budget', () => {
  const root = new URL('..', import.meta.url).pathname;
  const past = readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !/\.(test|fixture)\.ts$|^testing\//.test(file))
    .flatMap((file) => [...readFileSync(join(root, file), 'utf8').matchAll(/\bapi\.store\.txn\(/g)].map(() => file));
  // What an import that failed leaves behind is deleted there, twice.
  expect(past).toEqual(['image/import.ts', 'image/import.ts']);
});
