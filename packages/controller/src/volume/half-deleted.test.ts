// SPDX-License-Identifier: Apache-2.0
import type { ImageId, VolumeId } from '@busbar/core/ids';
import { ImageFormat, ImagePhase } from '@busbar/proto/gen/busbar/v1/image';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { CreateVmRequest, RunPolicy } from '@busbar/proto/gen/busbar/v1/vm';
import { CreateVolumeRequest, VolumePhase } from '@busbar/proto/gen/busbar/v1/volume';
import type { SimFault } from '@busbar/storage/sim/driver';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SAGAS } from '../leader/term.ts';
import { around } from '../operation/around.fixture.ts';
import { operationOf } from '../operation/progress.ts';
import { nameKey, putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';

/** What the pool holds in part is never told as whole, and never forgotten. */
const MIB = 1024n ** 2n;
const flags = { validateOnly: false, requestId: '' };
const IMAGE_ID = '6695eb01-f6a4-4304-89aa-97f2502e193f';

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const lastState = () =>
  [...rig.view.tables.operation.sorted()]
    .sort((a, b) => (a.createRevision < b.createRevision ? 1 : -1))
    .map((entry) => operationOf(entry.record).state)[0];
const fault = (more: Pick<SimFault, 'call'> & Partial<SimFault>) =>
  rig.pool.faults.push({ what: 'storageFailed', times: 1, ...more });
const createVolume = () =>
  rig.call(
    'VolumeService',
    'createVolume',
    CreateVolumeRequest.fromPartial({ name: 'history', spec: { sizeBytes: MIB } }),
  );

describe('a volume whose deletion fails', () => {
  const remove = async () => {
    await rig.call('VolumeService', 'deleteVolume', { volume: 'history', revision: 0n, ...flags });
    await rig.finish();
  };
  const record = () => rig.view.tables.volume.find('history')?.record;
  beforeEach(async () => {
    await createVolume();
    await rig.finish();
  });

  it('in its middle stays DELETING, and the next deletion finishes it', async () => {
    fault({ call: 'deleteVolume', half: true });
    await remove();
    expect(lastState()).toBe(OperationState.FAILED);
    expect(record()).toMatchObject({ phase: VolumePhase.DELETING, meta: { deleting: true } });
    await remove();
    expect(lastState()).toBe(OperationState.SUCCEEDED);
    expect(record()).toBeUndefined();
    expect(rig.pool.volumes.size).toBe(0);
  });

  it('before its first byte is READY again, after its last one forgotten', async () => {
    fault({ call: 'deleteVolume' });
    await remove();
    expect(record()).toMatchObject({ phase: VolumePhase.READY, meta: { deleting: false } });
    fault({ call: 'deleteVolume', afterwards: true });
    await remove();
    expect(lastState()).toBe(OperationState.FAILED);
    expect(record()).toBeUndefined();
  });
});

describe('an image whose deletion fails in its middle', () => {
  it('stays DELETING, and the next deletion finishes it', async () => {
    async function* source() {
      yield new Uint8Array(Number(MIB));
    }
    const imageId = IMAGE_ID as ImageId;
    const signal = new AbortController().signal;
    const request = { imageId, format: 'raw', sizeBytes: MIB, sha256: null, source: source(), signal } as const;
    await rig.run(rig.api.storage.importImage(request));
    const meta = { id: IMAGE_ID, name: 'debian', labels: {}, createTime: undefined, updateTime: undefined };
    const written = await rig.run(
      rig.api.store.txn({
        compare: [],
        writes: [
          putRecord('image', IMAGE_ID, {
            meta: { ...meta, deleting: false },
            spec: { format: ImageFormat.RAW, fileSizeBytes: MIB, sha256: '' },
            status: { phase: ImagePhase.READY, virtualSizeBytes: MIB, allocatedBytes: MIB, sha256: '' },
          }),
          { kind: 'put', key: nameKey('image', 'debian'), value: IMAGE_ID },
        ],
      }),
    );
    await rig.run(rig.view.waitFor(written.revision));
    const remove = async () => {
      await rig.call('ImageService', 'deleteImage', { image: 'debian', revision: 0n, ...flags });
      await rig.finish();
    };
    fault({ call: 'deleteImage', half: true });
    await remove();
    const record = () => rig.view.tables.image.find('debian')?.record;
    expect(lastState()).toBe(OperationState.FAILED);
    expect(record()).toMatchObject({ meta: { deleting: true }, status: { phase: ImagePhase.DELETING } });
    await remove();
    expect(lastState()).toBe(OperationState.SUCCEEDED);
    expect(record()).toBeUndefined();
    expect(rig.pool.images.size).toBe(0);
  });
});

describe('a creation that is undone while an orphan has its volume open', () => {
  /** The orphan of a killed leader has whatever is made open. */
  const haunted = (step: string) =>
    rig.newLeader(
      SAGAS.map((saga) => ({
        ...saga,
        steps: saga.steps.map((each) =>
          around(each, async (run) => {
            const outcome = await run();
            for (const id of rig.pool.volumes.keys()) rig.pool.orphaned.add(id as VolumeId);
            if (each.name === step) throw new Error('injected');
            return outcome;
          }),
        ),
      })),
    );

  it('removes the volumes of the VM', async () => {
    haunted('create-volumes');
    const request = CreateVmRequest.fromPartial({
      name: 'relay-1',
      spec: {
        runPolicy: RunPolicy.RUNNING,
        cpu: { vcpus: 1 },
        memoryBytes: 256n * MIB,
        disks: [{ name: 'data', sizeBytes: 64n * MIB }],
      },
    });
    await rig.call('VmService', 'createVm', request);
    await rig.finish();
    expect(lastState()).toBe(OperationState.FAILED);
    expect(rig.pool.orphaned.size).toBe(1);
    expect(rig.pool.volumes.size).toBe(0);
    expect(rig.view.tables.vm.find('relay-1')).toBeUndefined();
  });

  it('removes the volume that stands on its own', async () => {
    haunted('create');
    await createVolume();
    await rig.finish();
    expect(lastState()).toBe(OperationState.FAILED);
    expect(rig.pool.orphaned.size).toBe(1);
    expect(rig.pool.volumes.size).toBe(0);
  });

  it('but a deletion of a volume that is READY does not: it may be a guest', async () => {
    await createVolume();
    await rig.finish();
    for (const id of rig.pool.volumes.keys()) rig.pool.orphaned.add(id);
    await rig.call('VolumeService', 'deleteVolume', { volume: 'history', revision: 0n, ...flags });
    await rig.finish();
    expect(lastState()).toBe(OperationState.FAILED);
    expect(rig.view.tables.volume.find('history')?.record).toMatchObject({ phase: VolumePhase.READY });
  });
});
