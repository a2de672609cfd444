// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import type { VolumeRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { ImagePhase } from '@busbar/proto/gen/busbar/v1/image';
import type { WatchVolumesResponse } from '@busbar/proto/gen/busbar/v1/volume';
import {
  CreateVolumeRequest,
  DeleteVolumeRequest,
  ResizeVolumeRequest,
  type Volume,
  VolumePhase,
  type VolumeServiceDefinition,
} from '@busbar/proto/gen/busbar/v1/volume';
import { z } from 'zod';
import type { Api, Call } from '../api/call.ts';
import { contentOf, mutate, type Plan } from '../api/mutate.ts';
import { page, pageFields } from '../api/pages.ts';
import { assertNotDeleting, assertRevision, find, nameTaken } from '../api/refusals.ts';
import type { Service } from '../api/service.ts';
import { sharedMessages } from '../api/shared-messages.ts';
import { invalid, labels, name, reference, requestId, revision } from '../api/validation.ts';
import { watchTable } from '../api/watch.ts';
import { text } from '../bounds/schema.ts';
import { newOperation } from '../operation/create.ts';
import { operationById } from '../operation/present.ts';
import { nameKey, putRecord } from '../records/kinds.ts';
import type { Compare } from '../store/cluster-store.ts';
import { absent, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { presentMeta } from '../vm/present.ts';
import { VOLUME_MAX_BYTES, VOLUME_MIN_BYTES } from '../vm/spec.ts';
import { CREATE_VOLUME, DELETE_VOLUME, RESIZE_VOLUME, userOf, volumeInUse } from './sagas.ts';

const size = z
  .bigint()
  .refine((v) => v === 0n || (v >= VOLUME_MIN_BYTES && v <= VOLUME_MAX_BYTES), '1 MiB to 64 TiB')
  .refine((v) => v % 512n === 0n, 'a multiple of 512 bytes');
const flags = { validateOnly: z.boolean(), requestId };

export function presentVolume(id: string, view: ClusterView): Volume | null {
  const entry = view.tables.volume.get(id);
  if (entry === undefined) return null;
  const user = userOf(id, view);
  return {
    meta: presentMeta(entry.record.meta, entry.modRevision),
    spec: entry.record.spec,
    status: {
      phase: entry.record.phase,
      vm: user === null ? undefined : { kind: 'vm', ...user },
      ownedByVm: entry.record.ownerVmId !== '',
    },
  };
}

export function volumeService(api: Api): Service<typeof VolumeServiceDefinition> {
  const shared = sharedMessages<WatchVolumesResponse>();
  return {
    createVolume: {
      access: 'write',
      schema: z.object({
        name,
        labels,
        spec: z.object({ sizeBytes: size, image: text(253, 'a name or an id') }, 'the volume: {sizeBytes: …}'),
        ...flags,
      }),
      handle: (request, call) =>
        mutate(api, call, {
          method: 'CreateVolume',
          content: contentOf(CreateVolumeRequest, request),
          requestId: request.requestId,
          validateOnly: request.validateOnly,
          plan: () => planCreate(api, request, call),
          preview: (plan) => ({
            operation: undefined,
            volume: { meta: presentMeta(plan.extra.meta, 0n), spec: plan.extra.spec, status: undefined },
          }),
          respond: (ids) => ({
            operation: operationById(ids.operationId, api.view),
            volume: presentVolume(ids.resourceId, api.view) ?? undefined,
          }),
        }),
    },
    getVolume: {
      access: 'read',
      schema: z.object({ volume: reference }),
      async handle(request) {
        await api.view.fresh();
        return { volume: presentVolume(find(api.view.tables.volume, request.volume).id, api.view) ?? undefined };
      },
    },
    listVolumes: {
      access: 'read',
      schema: z.object(pageFields),
      async handle(request) {
        const revisionNow = await api.view.fresh();
        const { items, nextPageToken } = page(
          api.view.tables.volume.sorted(),
          (entry) => entry.record.meta?.name ?? '',
          request,
        );
        const volumes = items.flatMap((entry) => presentVolume(entry.id, api.view) ?? []);
        return { volumes, nextPageToken, revision: revisionNow };
      },
    },
    resizeVolume: {
      access: 'write',
      schema: z.object({ volume: reference, sizeBytes: size, revision, ...flags }),
      handle: (request, call) =>
        mutate(api, call, {
          method: 'ResizeVolume',
          content: contentOf(ResizeVolumeRequest, request),
          requestId: request.requestId,
          validateOnly: request.validateOnly,
          plan: () => planResize(api, request, call),
          preview: () => ({ operation: undefined }),
          respond: (ids) => ({ operation: operationById(ids.operationId, api.view) }),
        }),
    },
    deleteVolume: {
      access: 'write',
      schema: z.object({ volume: reference, revision, ...flags }),
      handle: (request, call) =>
        mutate(api, call, {
          method: 'DeleteVolume',
          content: contentOf(DeleteVolumeRequest, request),
          requestId: request.requestId,
          validateOnly: request.validateOnly,
          plan: () => planDelete(api, request, call),
          preview: () => ({ operation: undefined }),
          respond: (ids) => ({ operation: operationById(ids.operationId, api.view) }),
        }),
    },
    watchVolumes: {
      access: 'read',
      place: 'watch',
      schema: z.object({ revision }),
      handle: (request, call) =>
        watchTable<Volume, WatchVolumesResponse>(api, call, request.revision, {
          kinds: ['volume'],
          ids: () => api.view.tables.volume.ids(),
          present: (id) => presentVolume(id, api.view),
          put: (volume) => ({ change: ChangeKind.PUT, volume }),
          gone: (id, goneName) => ({
            change: ChangeKind.DELETE,
            volume: { meta: { ...presentMeta(undefined, 0n), id, name: goneName }, spec: undefined, status: undefined },
          }),
          mark: (change, progress) => ({ change, volume: undefined, progress }),
          shared,
        }),
    },
  };
}

function planCreate(api: Api, request: CreateVolumeRequest, call: Call): Plan<VolumeRecord> {
  if (api.view.tables.volume.find(request.name) !== undefined) throw nameTaken('volume', request.name);
  const id = api.random.uuid();
  const now = api.clock.wallTime();
  const compare: Compare[] = [absent(nameKey('volume', request.name))];
  let { sizeBytes, image } = request.spec ?? { sizeBytes: 0n, image: '' };
  if (image !== '') {
    const entry = find(api.view.tables.image, image);
    assertNotDeleting('image', entry);
    const virtual = entry.record.status?.virtualSizeBytes ?? 0n;
    if (entry.record.status?.phase !== ImagePhase.READY) {
      throw new BusbarError({
        kind: 'precondition',
        reason: 'IMAGE_NOT_READY',
        message: `image "${image}" is not ready`,
        hint: 'wait until its import has ended',
      });
    }
    if (sizeBytes !== 0n && sizeBytes < virtual) {
      throw invalid([
        {
          field: 'spec.sizeBytes',
          problem: `is ${sizeBytes}`,
          expected: `at least ${virtual}, the size of image "${image}", or 0`,
        },
      ]);
    }
    compare.push(unchanged('image', entry));
    image = entry.id;
    sizeBytes = sizeBytes || virtual;
  }
  if (sizeBytes === 0n)
    throw invalid([
      { field: 'spec.sizeBytes', problem: 'is 0', expected: '1 MiB to 64 TiB, or an image to take the size from' },
    ]);
  const record: VolumeRecord = {
    meta: { id, name: request.name, labels: request.labels, createTime: now, updateTime: now, deleting: false },
    spec: { sizeBytes, image },
    phase: VolumePhase.CREATING,
    ownerVmId: '',
    growingToBytes: 0n,
  };
  const target = { kind: 'volume', id, name: request.name };
  const operation = newOperation(api, call, {
    method: 'CreateVolume',
    requestId: request.requestId,
    target,
    saga: CREATE_VOLUME,
  });
  return {
    compare,
    writes: [
      putRecord('volume', id, record),
      { kind: 'put', key: nameKey('volume', request.name), value: id },
      operation.write,
    ],
    ids: { operationId: operation.id, resourceId: id },
    extra: record,
  };
}

function planResize(api: Api, request: ResizeVolumeRequest, call: Call): Plan<null> {
  const entry = find(api.view.tables.volume, request.volume);
  const { meta, spec } = entry.record;
  const volumeName = meta?.name ?? '';
  assertRevision('volume', volumeName, entry, request.revision);
  assertNotDeleting('volume', entry);
  if (request.sizeBytes < (spec?.sizeBytes ?? 0n)) {
    throw new BusbarError({
      kind: 'invalid',
      reason: 'VOLUME_SHRINK',
      message: `volume "${volumeName}" has ${spec?.sizeBytes} bytes; ${request.sizeBytes} would cut off data`,
      hint: 'volumes only grow: create a smaller one and copy inside the guest',
      fields: [{ field: 'sizeBytes', problem: `is ${request.sizeBytes}`, expected: `at least ${spec?.sizeBytes}` }],
    });
  }
  const target = { kind: 'volume', id: entry.id, name: volumeName };
  const facts = { sizeBytes: String(request.sizeBytes) };
  const operation = newOperation(api, call, {
    method: 'ResizeVolume',
    requestId: request.requestId,
    target,
    saga: RESIZE_VOLUME,
    facts,
  });
  return {
    compare: [unchanged('volume', entry)],
    writes: [operation.write],
    ids: { operationId: operation.id, resourceId: entry.id },
    extra: null,
  };
}

function planDelete(api: Api, request: DeleteVolumeRequest, call: Call): Plan<null> {
  const entry = find(api.view.tables.volume, request.volume);
  const { meta } = entry.record;
  const volumeName = meta?.name ?? '';
  assertRevision('volume', volumeName, entry, request.revision);
  const user = userOf(entry.id, api.view);
  if (user !== null) throw volumeInUse(volumeName, user.name);
  if (entry.record.phase === VolumePhase.CREATING) {
    throw new BusbarError({
      kind: 'precondition',
      reason: 'VOLUME_NOT_READY',
      message: `volume "${volumeName}" is being created`,
      hint: 'wait, or cancel its operation',
    });
  }
  const target = { kind: 'volume', id: entry.id, name: volumeName };
  const operation = newOperation(api, call, {
    method: 'DeleteVolume',
    requestId: request.requestId,
    target,
    saga: DELETE_VOLUME,
  });
  const closed: VolumeRecord = {
    ...entry.record,
    phase: VolumePhase.DELETING,
    ...(meta === undefined ? {} : { meta: { ...meta, deleting: true } }),
  };
  return {
    compare: [unchanged('volume', entry)],
    writes: [putRecord('volume', entry.id, closed), operation.write],
    ids: { operationId: operation.id, resourceId: entry.id },
    extra: null,
  };
}
