// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import type { VmRecord, VolumeRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ImagePhase } from '@busbar/proto/gen/busbar/v1/image';
import type { CreateVmRequest, Disk, VmSpec } from '@busbar/proto/gen/busbar/v1/vm';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { VolumePhase } from '@busbar/proto/gen/busbar/v1/volume';
import type { Api, Call } from '../api/call.ts';
import type { Plan } from '../api/mutate.ts';
import { assertNotDeleting, nameTaken, notFound } from '../api/refusals.ts';
import { invalid } from '../api/validation.ts';
import { newOperation } from '../operation/create.ts';
import { guardKey, nameKey, putRecord } from '../records/kinds.ts';
import type { Compare, Write } from '../store/cluster-store.ts';
import { absent, exists, unchanged } from '../view/table.ts';
import { assertNotRedacted, sealCloudInit } from './cloud-init.ts';
import { assertPlaceable } from './placement.ts';
import { CREATE_VM } from './sagas.ts';
import { withDefaults } from './spec.ts';

/**
 * Everything that a new VM needs in one transaction: its record, status, name, the records and names of the
 * volumes made with it, and the operation. The comparisons hold what it refers to: images and networks that are still there, volumes
 * that nobody took meanwhile.
 */
export function planCreate(api: Api, request: CreateVmRequest, call: Call): Plan<VmRecord> {
  const { vm } = api.view.tables;
  if (vm.find(request.name) !== undefined) throw nameTaken('vm', request.name);
  if (request.spec === undefined) throw invalid([{ field: 'spec', problem: 'is missing', expected: 'the VM' }]);
  const { cloudInit } = request.spec;
  assertNotRedacted(cloudInit);
  const id = api.random.uuid();
  const now = api.clock.wallTime();
  const compare: Compare[] = [absent(nameKey('vm', request.name))];
  const writes: Write[] = [];

  const resolved = resolveReferences(api, withDefaults(request.spec, id), { compare, writes });
  const diskVolumes: Record<string, string> = {};
  for (const disk of resolved.disks) {
    if (disk.volume !== '') diskVolumes[disk.name] = disk.volume;
    else {
      const volume = newVolume(api, id, request.name, disk, now);
      diskVolumes[disk.name] = volume.meta?.id ?? '';
      const volumeName = volume.meta?.name ?? '';
      compare.push(absent(nameKey('volume', volumeName)));
      writes.push(putRecord('volume', diskVolumes[disk.name] ?? '', volume), {
        kind: 'put',
        key: nameKey('volume', volumeName),
        value: diskVolumes[disk.name] ?? '',
      });
    }
  }
  const record: VmRecord = {
    meta: { id, name: request.name, labels: request.labels, createTime: now, updateTime: now, deleting: false },
    spec: { ...resolved, cloudInit: undefined },
    stopByForce: false,
    stopTimeoutMs: 0,
    diskVolumes,
    sealedCloudInit: sealCloudInit(api.seal, id, cloudInit),
  };
  assertPlaceable(api, record);
  const target = { kind: 'vm', id, name: request.name };
  const operation = newOperation(api, call, {
    method: 'CreateVm',
    requestId: request.requestId,
    target,
    saga: CREATE_VM,
  });
  writes.push(
    putRecord('vm', id, record),
    putRecord('vm-status', id, {
      phase: VmPhase.CREATING,
      message: '',
      host: '',
      epoch: 0n,
      startTime: undefined,
      failedStarts: 0,
      startedRevision: 0n,
      startedHardware: '',
      restartEpoch: 0n,
      restartByForce: false,
      placement: undefined,
      observedPlacement: undefined,
      placementDrift: '',
      placementReason: '',
      diskSizes: {},
      bootId: '',
      epochFloor: 0n,
    }),
    { kind: 'put', key: nameKey('vm', request.name), value: id },
    operation.write,
  );
  return { compare, writes, ids: { operationId: operation.id, resourceId: id }, extra: record };
}

/**
 * Names become ids; what they refer to must exist and be usable, and the transaction makes sure that it still is:
 *  - a volume has one user: its record is compared and rewritten, so that of two takers one fails;
 *  - a network's guard key is rewritten, which fails a deletion that looked for users just before;
 *  - an image may be taken by many at once: its record changes only when it is closed for deletion.
 */
export function resolveReferences(
  api: Api,
  spec: VmSpec,
  transaction: { compare: Compare[]; writes: Write[] },
  vmId = '',
): VmSpec {
  const { compare, writes } = transaction;
  const { image, network, volume, host } = api.view.tables;
  const taken = new Map<string, string>();
  const guarded = new Set<string>();
  const disks = spec.disks.map((disk, index): Disk => {
    if (disk.volume !== '') {
      const entry = volume.find(disk.volume);
      if (entry === undefined) throw at(`spec.disks[${index}].volume`, notFound('volume', disk.volume));
      const user = api.view.tables.vm
        .sorted()
        .find((vm) => vm.id !== vmId && Object.values(vm.record.diskVolumes).includes(entry.id));
      if (user !== undefined)
        throw volumeInUse(`spec.disks[${index}].volume`, disk.volume, user.record.meta?.name ?? '');
      if (entry.record.phase !== VolumePhase.READY) {
        throw at(
          `spec.disks[${index}].volume`,
          new BusbarError({
            kind: 'precondition',
            reason: 'VOLUME_NOT_READY',
            message: `volume "${disk.volume}" is not ready`,
            hint: 'wait until it is ready',
          }),
        );
      }
      const other = taken.get(entry.id);
      if (other !== undefined) {
        throw invalid([
          {
            field: `spec.disks[${index}].volume`,
            problem: `is "${disk.volume}", which is disk "${other}" already`,
            expected: 'each volume used once',
          },
        ]);
      }
      taken.set(entry.id, disk.name);
      compare.push(unchanged('volume', entry));
      writes.push(putRecord('volume', entry.id, entry.record));
      return { ...disk, volume: entry.id };
    }
    if (disk.image === '') return disk;
    const entry = image.find(disk.image);
    if (entry === undefined) throw at(`spec.disks[${index}].image`, notFound('image', disk.image));
    const status = entry.record.status;
    if (status?.phase !== ImagePhase.READY) {
      throw at(
        `spec.disks[${index}].image`,
        new BusbarError({
          kind: 'precondition',
          reason: 'IMAGE_NOT_READY',
          message: `image "${disk.image}" is not ready`,
          hint: 'wait until its import has ended',
        }),
      );
    }
    if (disk.sizeBytes !== 0n && disk.sizeBytes < status.virtualSizeBytes) {
      throw invalid([
        {
          field: `spec.disks[${index}].sizeBytes`,
          problem: `is ${disk.sizeBytes}`,
          expected: `at least ${status.virtualSizeBytes}, the size of image "${disk.image}", or 0`,
        },
      ]);
    }
    assertNotDeleting('image', entry);
    compare.push(unchanged('image', entry));
    return { ...disk, image: entry.id, sizeBytes: disk.sizeBytes || status.virtualSizeBytes };
  });
  const nics = spec.nics.map((nic, index) => {
    const entry = network.find(nic.network);
    if (entry === undefined) throw at(`spec.nics[${index}].network`, notFound('network', nic.network));
    compare.push(exists('network', entry));
    // Several NICs in one network are fine, writing a key twice is not.
    if (!guarded.has(entry.id)) writes.push({ kind: 'put', key: guardKey('network', entry.id), value: vmId });
    guarded.add(entry.id);
    return { ...nic, network: entry.id };
  });
  const pinned = spec.placement?.pinnedHost ?? '';
  if (pinned !== '' && host.get(pinned) === undefined) throw at('spec.placement.pinnedHost', notFound('host', pinned));
  return { ...spec, disks, nics };
}

/** Volumes made with a VM are named after it, so that a list of volumes explains itself. */
function newVolume(api: Api, vmId: string, vmName: string, disk: Disk, now: Date): VolumeRecord {
  const volumeName = `${vmName}-${disk.name}`;
  if (api.view.tables.volume.find(volumeName) !== undefined) throw nameTaken('volume', volumeName);
  return {
    meta: { id: api.random.uuid(), name: volumeName, labels: {}, createTime: now, updateTime: now, deleting: false },
    spec: { sizeBytes: disk.sizeBytes, image: disk.image },
    phase: VolumePhase.CREATING,
    ownerVmId: vmId,
    growingToBytes: 0n,
  };
}

function volumeInUse(field: string, volume: string, vm: string): BusbarError {
  return at(
    field,
    new BusbarError({
      kind: 'precondition',
      reason: 'VOLUME_IN_USE',
      message: `volume "${volume}" is a disk of VM "${vm}"`,
      hint: 'use another volume, or delete that VM',
    }),
  );
}

/** The same error, with the field that led to it. */
function at(field: string, error: BusbarError): BusbarError {
  return new BusbarError({
    kind: error.kind,
    reason: error.reason,
    message: `${field}: ${error.message}`,
    hint: error.hint,
    fields: [{ field, problem: error.message, expected: error.hint }],
  });
}
