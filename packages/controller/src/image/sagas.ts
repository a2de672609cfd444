// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import type { ImageId } from '@busbar/core/ids';
import type { ImageRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ImagePhase } from '@busbar/proto/gen/busbar/v1/image';
import { operationOf } from '../operation/progress.ts';
import { DONE, done, NO_WRITES, type Saga, type SagaContext, type StepWrites } from '../operation/saga.ts';
import { deleteRecord, nameKey, putRecord } from '../records/kinds.ts';
import { type Entry, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';

function image(context: SagaContext): Entry<ImageRecord> | undefined {
  return context.view.tables.image.get(operationOf(context.operation).target?.id ?? '');
}

function forget(context: SagaContext): StepWrites {
  const entry = image(context);
  if (entry === undefined) return NO_WRITES;
  return {
    compare: [unchanged('image', entry)],
    writes: [deleteRecord('image', entry.id), { kind: 'delete', key: nameKey('image', entry.record.meta?.name ?? '') }],
  };
}

export function clonesOf(imageId: string, view: ClusterView): readonly string[] {
  return view.tables.volume
    .sorted()
    .filter((entry) => entry.record.spec?.image === imageId)
    .map((entry) => entry.record.meta?.name ?? entry.id);
}

export function imageInUse(name: string, volumes: readonly string[]): BusbarError {
  const shown = volumes.slice(0, 5).join(', ') + (volumes.length > 5 ? ` and ${volumes.length - 5} more` : '');
  return new BusbarError({
    kind: 'precondition',
    reason: 'IMAGE_IN_USE',
    message: `image "${name}" is the origin of volumes: ${shown}`,
    hint: 'delete these volumes first',
  });
}

export const DELETE_IMAGE: Saga = {
  name: 'delete-image',
  steps: [
    {
      name: 'close',
      // The record has said "deleting" since the call was accepted, so no new volume can refer to it: look once again.
      async do(context) {
        const entry = image(context);
        const volumes = entry === undefined ? [] : clonesOf(entry.id, context.view);
        if (volumes.length > 0) throw imageInUse(entry?.record.meta?.name ?? '', volumes);
        return DONE;
      },
      async undo(context) {
        const entry = image(context);
        if (entry?.record.meta === undefined || entry.record.status === undefined) return NO_WRITES;
        if ((await context.storage.statImage(entry.id as ImageId)) === null) {
          // As for volumes: gone with its data, or kept as DELETING when the pool holds some of it still.
          const isLeft = (await context.storage.listImages()).some(({ imageId }) => imageId === entry.id);
          return isLeft ? NO_WRITES : forget(context);
        }
        const kept: ImageRecord = {
          ...entry.record,
          meta: { ...entry.record.meta, deleting: false },
          status: { ...entry.record.status, phase: ImagePhase.READY },
        };
        return { compare: [unchanged('image', entry)], writes: [putRecord('image', entry.id, kept)] };
      },
    },
    {
      name: 'delete',
      pool: true,
      async do(context) {
        const entry = image(context);
        if (entry === undefined) return DONE;
        await context.storage.deleteImage(entry.id as ImageId);
        return done(forget(context));
      },
      // No undo: deleted data does not come back. A pool that refuses (clones exist) has lost nothing: "close" is undone.
      undo: null,
    },
  ],
};
