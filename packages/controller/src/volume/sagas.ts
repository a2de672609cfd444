// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import type { ImageId, VolumeId } from '@busbar/core/ids';
import type { VolumeRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { VolumePhase } from '@busbar/proto/gen/busbar/v1/volume';
import { operationOf } from '../operation/progress.ts';
import {
  DONE,
  done,
  NO_WRITES,
  type PoolContext,
  type Saga,
  type SagaContext,
  type StepWrites,
} from '../operation/saga.ts';
import { deleteRecord, nameKey, putRecord } from '../records/kinds.ts';
import { type Entry, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { isOnHost } from '../vm/plan.ts';
import { phaseWord } from '../vm/state.ts';
import { deleteWhenClosed } from './delete.ts';

/** Sagas on volumes that stand on their own. Those of a VM are made and deleted by the VM's sagas. */

function volume(context: SagaContext): Entry<VolumeRecord> | undefined {
  return context.view.tables.volume.get(operationOf(context.operation).target?.id ?? '');
}

function forget(context: SagaContext): StepWrites {
  const entry = volume(context);
  if (entry === undefined) return NO_WRITES;
  return {
    compare: [unchanged('volume', entry)],
    writes: [
      deleteRecord('volume', entry.id),
      { kind: 'delete', key: nameKey('volume', entry.record.meta?.name ?? '') },
    ],
  };
}

/** The VM that has the volume as a disk. */
export function userOf(volumeId: string, view: ClusterView): { readonly id: string; readonly name: string } | null {
  for (const entry of view.tables.vm.sorted()) {
    if (Object.values(entry.record.diskVolumes).includes(volumeId))
      return { id: entry.id, name: entry.record.meta?.name ?? '' };
  }
  return null;
}

export function volumeInUse(name: string, vm: string): BusbarError {
  return new BusbarError({
    kind: 'precondition',
    reason: 'VOLUME_IN_USE',
    message: `volume "${name}" is a disk of VM "${vm}"`,
    hint: `delete that VM first: busbar vm delete ${vm}`,
  });
}

export const CREATE_VOLUME: Saga = {
  name: 'create-volume',
  steps: [
    { name: 'accept', do: async () => DONE, undo: async (context) => forget(context) },
    {
      name: 'create',
      pool: true,
      async do(context) {
        const entry = volume(context);
        if (entry?.record.spec === undefined) return DONE;
        const { sizeBytes, image } = entry.record.spec;
        const volumeId = entry.id as VolumeId;
        if (image === '') await context.storage.createVolume({ volumeId, sizeBytes });
        else await context.storage.cloneVolume({ volumeId, imageId: image as ImageId, sizeBytes });
        return done({
          compare: [unchanged('volume', entry)],
          writes: [putRecord('volume', entry.id, { ...entry.record, phase: VolumePhase.READY })],
        });
      },
      async undo(context) {
        const entry = volume(context);
        const id = operationOf(context.operation).target?.id ?? '';
        // No VM takes a volume that is still being created (see VOLUME_NOT_READY).
        const neverUsed = entry?.record.phase === VolumePhase.CREATING && userOf(id, context.view) === null;
        await context.storage.deleteVolume(id as VolumeId, { neverUsed });
        return NO_WRITES;
      },
    },
  ],
};

/** Within this a QEMU that answers has grown its disk many times over (0.6 s), and one that hangs is told as such. */
const GROW_LIMIT_MS = 45_000;

/**
 * Who has the volume open grows it. For a VM that is on a host that is its QEMU, asked by the agent: the guest sees the new
 * size, and nobody takes the image's lock from a QEMU that may just stand still, which would end its guest. The volume says
 * which size is wanted; the VM reconciler records what QEMU says. Only what no VM has is grown by the pool.
 *
 * A VM that stops meanwhile: the pool grows it. One that starts meanwhile opens it as it is and is asked then. An agent or
 * libvirt that is away, a QEMU that hangs, a host that is unknown: waited for, then the order is taken back.
 */
export const RESIZE_VOLUME: Saga = {
  name: 'resize-volume',
  steps: [
    {
      name: 'order',
      do: async (context) => done(wantSize(context, BigInt(context.operation.facts.sizeBytes ?? '0'))),
      undo: async (context) => wantSize(context, 0n),
    },
    {
      name: 'resize',
      pool: true,
      async do(context) {
        const entry = volume(context);
        const sizeBytes = BigInt(context.operation.facts.sizeBytes ?? '0');
        if (entry?.record.spec === undefined) return DONE;
        if (sizeBytes > entry.record.spec.sizeBytes) {
          const waitsFor = await grown(context, entry.id, sizeBytes);
          if (waitsFor !== null && context.stepAgeMs < GROW_LIMIT_MS) return { kind: 'wait', message: waitsFor };
          if (waitsFor !== null) throw notAnswering(entry.record.meta?.name ?? '', waitsFor);
        }
        const size = sizeBytes > entry.record.spec.sizeBytes ? sizeBytes : entry.record.spec.sizeBytes;
        const next = { ...entry.record, growingToBytes: 0n, spec: { ...entry.record.spec, sizeBytes: size } };
        return done({ compare: [unchanged('volume', entry)], writes: [putRecord('volume', entry.id, next)] });
      },
      // No undo: a grown volume cannot be cut without risk to the guest's data.
      undo: null,
    },
  ],
};

function wantSize(context: SagaContext, sizeBytes: bigint): StepWrites {
  const entry = volume(context);
  const isLarger = sizeBytes > (entry?.record.spec?.sizeBytes ?? 0n);
  const growingToBytes = isLarger ? sizeBytes : 0n;
  if (entry === undefined || entry.record.growingToBytes === growingToBytes) return NO_WRITES;
  const next = { ...entry.record, growingToBytes };
  return { compare: [unchanged('volume', entry)], writes: [putRecord('volume', entry.id, next)] };
}

/** What it waits for; null when the volume has the size. */
async function grown(context: PoolContext, volumeId: string, sizeBytes: bigint): Promise<string | null> {
  const user = userOf(volumeId, context.view);
  const status = user === null ? undefined : context.view.tables['vm-status'].get(user.id)?.record;
  if (user !== null && status !== undefined && isOnHost(status)) {
    if ((status.diskSizes[volumeId] ?? 0n) >= sizeBytes) return null;
    const said = status.message === '' ? '' : `: ${status.message}`;
    return `VM "${user.name}" on ${status.host} (${phaseWord(status.phase)}) to grow its disk${said}`;
  }
  try {
    await context.storage.resizeVolume(volumeId as VolumeId, sizeBytes);
    return null;
  } catch (error) {
    // A QEMU that ended a moment ago, or one that the records do not know: either way not ours to take it from.
    if (error instanceof BusbarError && error.reason === 'VOLUME_IN_USE')
      return `whoever has it open: ${error.message}`;
    throw error;
  }
}

function notAnswering(name: string, waitsFor: string): BusbarError {
  return new BusbarError({
    kind: 'precondition',
    reason: 'VM_NOT_ANSWERING',
    message: `volume "${name}" was not grown within ${GROW_LIMIT_MS / 1_000} s: waited for ${waitsFor}`,
    hint: 'look at the VM and its host; when both answer, or the VM is stopped, resize again',
  });
}

export const DELETE_VOLUME: Saga = {
  name: 'delete-volume',
  steps: [
    {
      name: 'close',
      // The record has said "deleting" since the call was accepted, so no VM can take the volume any more: look once again.
      async do(context) {
        const entry = volume(context);
        const user = entry === undefined ? null : userOf(entry.id, context.view);
        if (entry !== undefined && user !== null) throw volumeInUse(entry.record.meta?.name ?? '', user.name);
        return DONE;
      },
      async undo(context) {
        const entry = volume(context);
        if (entry?.record.meta === undefined) return NO_WRITES;
        if ((await context.storage.statVolume(entry.id as VolumeId)) === null) {
          // The pool may have deleted it before the failure: a record without data would be a lie. What it holds still
          // is half deleted: the record stays DELETING, so that nobody uses it and a repeated deletion finishes it.
          const isLeft = (await context.storage.listVolumes()).some((id) => id === entry.id);
          return isLeft ? NO_WRITES : forget(context);
        }
        const kept: VolumeRecord = {
          ...entry.record,
          phase: VolumePhase.READY,
          meta: { ...entry.record.meta, deleting: false },
        };
        return { compare: [unchanged('volume', entry)], writes: [putRecord('volume', entry.id, kept)] };
      },
    },
    {
      name: 'delete',
      pool: true,
      async do(context) {
        const entry = volume(context);
        const waitsFor = entry === undefined ? null : await deleteWhenClosed(context, entry.id);
        return waitsFor === null ? done(forget(context)) : { kind: 'wait', message: waitsFor };
      },
      // No undo: deleted data does not come back. A pool that refuses (a client has it open) has lost nothing: "close" is undone;
      // from its first byte on it says that the volume is not complete, and "close" is not.
      undo: null,
    },
  ],
};
