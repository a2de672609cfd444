// SPDX-License-Identifier: Apache-2.0
import type { VolumeId } from '@busbar/core/ids';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { CreateVmRequest, RunPolicy } from '@busbar/proto/gen/busbar/v1/vm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { operationOf } from '../operation/progress.ts';
import { Rig } from '../testing/rig.ts';
import { desiredFor } from '../vm/desired.ts';

/** Goal: who has a volume open grows it, and nobody takes it from a QEMU that may just stand still. */
const MIB = 1024n ** 2n;
let rig: Rig;
let id: VolumeId;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

async function withVm(runPolicy: RunPolicy = RunPolicy.RUNNING): Promise<void> {
  const spec = {
    runPolicy,
    cpu: { vcpus: 1 },
    memoryBytes: 256n * MIB,
    disks: [{ name: 'data', sizeBytes: 64n * MIB }],
  };
  await rig.call('VmService', 'createVm', CreateVmRequest.fromPartial({ name: 'relay-1', spec }));
  await rig.finish();
  const [entry] = rig.view.tables.volume.sorted();
  id = entry?.id as VolumeId;
  // QEMU has it open: the pool refuses whoever else wants to change it.
  if (runPolicy === RunPolicy.RUNNING) rig.pool.open.add(id);
}

const flags = { validateOnly: false, requestId: '', revision: 0n };
async function resize(sizeBytes: bigint) {
  const name = rig.view.tables.volume.get(id)?.record.meta?.name ?? '';
  await rig.call('VolumeService', 'resizeVolume', { volume: name, sizeBytes, ...flags });
  await rig.finish();
  const last = rig.view.tables.operation.sorted().toSorted((a, b) => Number(b.createRevision - a.createRevision))[0];
  if (last === undefined) throw new Error('no operation');
  return operationOf(last.record);
}
const record = () => rig.view.tables.volume.get(id)?.record;
const inPool = () => rig.pool.volumes.get(id)?.sizeBytes;

describe('a volume', () => {
  it('of a VM that runs is grown by its QEMU and by nobody else', async () => {
    await withVm();
    expect(await resize(128n * MIB)).toMatchObject({ state: OperationState.SUCCEEDED });
    expect(record()).toMatchObject({ spec: { sizeBytes: 128n * MIB }, growingToBytes: 0n });
    expect(inPool()).toBe(64n * MIB);
  });

  it('of a VM that does not run is grown by the pool', async () => {
    await withVm(RunPolicy.STOPPED);
    expect(await resize(128n * MIB)).toMatchObject({ state: OperationState.SUCCEEDED });
    expect([record()?.spec?.sizeBytes, record()?.growingToBytes, inPool()]).toEqual([128n * MIB, 0n, 128n * MIB]);
  });

  it('of a QEMU that stands still is left alone: it fails in time, nothing is changed, and works once it answers', async () => {
    await withVm();
    rig.qemuHangs = true;
    const began = rig.clock.nowMs();
    const failed = await resize(128n * MIB);
    expect(failed).toMatchObject({
      state: OperationState.FAILED,
      error: { reason: 'VM_NOT_ANSWERING', message: expect.stringContaining('VM "relay-1" on host1 (running)') },
    });
    expect(rig.clock.nowMs() - began).toBeLessThan(60_000);
    expect([record()?.spec?.sizeBytes, record()?.growingToBytes, inPool()]).toEqual([64n * MIB, 0n, 64n * MIB]);
    rig.qemuHangs = false;
    expect(await resize(128n * MIB)).toMatchObject({ state: OperationState.SUCCEEDED });
  });

  it('is not taken from a client that the records do not know', async () => {
    await withVm(RunPolicy.STOPPED);
    rig.pool.open.add(id);
    expect(await resize(128n * MIB)).toMatchObject({
      state: OperationState.FAILED,
      error: { reason: 'VM_NOT_ANSWERING', message: expect.stringContaining('whoever has it open') },
    });
    expect([record()?.growingToBytes, inPool()]).toEqual([0n, 64n * MIB]);
  });

  it('is told to its host with the size that is wanted, and only while it is', async () => {
    await withVm();
    const told = () => {
      const none = () => undefined;
      const position = { term: 1n, generation: 1n };
      const state = desiredFor('host1', position, rig.view, null, rig.api.storage, none, none);
      return state.vms.flatMap((vm) => vm.domain?.disks.map((disk) => disk.growToBytes));
    };
    expect(told()).toEqual([0n]);
    rig.qemuHangs = true;
    const name = record()?.meta?.name ?? '';
    await rig.call('VolumeService', 'resizeVolume', { volume: name, sizeBytes: 128n * MIB, ...flags });
    await rig.finish(5_000).catch(() => {});
    expect(told()).toEqual([128n * MIB]);
    rig.qemuHangs = false;
    await rig.finish();
    expect(told()).toEqual([0n]);
  });
});
