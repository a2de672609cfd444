// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import type { Image, WatchImagesResponse } from '@busbar/proto/gen/busbar/v1/image';
import { DeleteImageRequest, ImagePhase, type ImageServiceDefinition } from '@busbar/proto/gen/busbar/v1/image';
import { z } from 'zod';
import type { Api, Call } from '../api/call.ts';
import { contentOf, mutate, type Plan } from '../api/mutate.ts';
import { page, pageFields } from '../api/pages.ts';
import { assertRevision, find } from '../api/refusals.ts';
import type { Service } from '../api/service.ts';
import { sharedMessages } from '../api/shared-messages.ts';
import { reference, requestId, revision } from '../api/validation.ts';
import { watchTable } from '../api/watch.ts';
import { bytes, checkedLater } from '../bounds/schema.ts';
import { newOperation } from '../operation/create.ts';
import { operationById } from '../operation/present.ts';
import { putRecord } from '../records/kinds.ts';
import { unchanged } from '../view/table.ts';
import { presentMeta } from '../vm/present.ts';
import { importImage } from './import.ts';
import { presentImage } from './present.ts';
import { clonesOf, DELETE_IMAGE, imageInUse } from './sagas.ts';
import { headerSchema } from './schema.ts';

/** A chunk of 1 MiB stays well below gRPC's message limit of 4 MiB. */
const CHUNK_MAX_BYTES = 1024 ** 2;

export function imageService(api: Api): Service<typeof ImageServiceDefinition> {
  const shared = sharedMessages<WatchImagesResponse>();
  return {
    importImage: {
      access: 'write',
      place: 'import',
      schema: z.object({
        part: z
          .union([
            z.object({ $case: z.literal('header'), value: checkedLater(headerSchema) }),
            z.object({
              $case: z.literal('chunk'),
              value: bytes(CHUNK_MAX_BYTES, 'at most 1 MiB'),
            }),
          ])
          .optional(),
      }),
      handle: (incoming, call) => importImage(api, incoming, call),
    },
    getImage: {
      access: 'read',
      schema: z.object({ image: reference }),
      async handle(request) {
        await api.view.fresh();
        return { image: presentImage(find(api.view.tables.image, request.image).id, api.view) ?? undefined };
      },
    },
    listImages: {
      access: 'read',
      schema: z.object(pageFields),
      async handle(request) {
        const revisionNow = await api.view.fresh();
        const { items, nextPageToken } = page(
          api.view.tables.image.sorted(),
          (entry) => entry.record.meta?.name ?? '',
          request,
        );
        return {
          images: items.flatMap((entry) => presentImage(entry.id, api.view) ?? []),
          nextPageToken,
          revision: revisionNow,
        };
      },
    },
    deleteImage: {
      access: 'write',
      schema: z.object({ image: reference, revision, validateOnly: z.boolean(), requestId }),
      handle: (request, call) =>
        mutate(api, call, {
          method: 'DeleteImage',
          content: contentOf(DeleteImageRequest, request),
          requestId: request.requestId,
          validateOnly: request.validateOnly,
          plan: () => planDelete(api, request, call),
          preview: () => ({ operation: undefined }),
          respond: (ids) => ({ operation: operationById(ids.operationId, api.view) }),
        }),
    },
    watchImages: {
      access: 'read',
      place: 'watch',
      schema: z.object({ revision }),
      handle: (request, call) =>
        watchTable<Image, WatchImagesResponse>(api, call, request.revision, {
          kinds: ['image'],
          ids: () => api.view.tables.image.ids(),
          present: (id) => presentImage(id, api.view),
          put: (image) => ({ change: ChangeKind.PUT, image }),
          gone: (id, name) => ({
            change: ChangeKind.DELETE,
            image: { meta: { ...presentMeta(undefined, 0n), id, name }, spec: undefined, status: undefined },
          }),
          mark: (change, progress) => ({ change, image: undefined, progress }),
          shared,
        }),
    },
  };
}

function planDelete(api: Api, request: DeleteImageRequest, call: Call): Plan<null> {
  const entry = find(api.view.tables.image, request.image);
  const { meta, status } = entry.record;
  const imageName = meta?.name ?? '';
  assertRevision('image', imageName, entry, request.revision);
  const volumes = clonesOf(entry.id, api.view);
  if (volumes.length > 0) throw imageInUse(imageName, volumes);
  if (meta === undefined || status === undefined || status.phase === ImagePhase.IMPORTING) {
    throw new BusbarError({
      kind: 'precondition',
      reason: 'IMAGE_NOT_READY',
      message: `image "${imageName}" is being imported`,
      hint: 'end the import first: interrupt the command that sends it',
    });
  }
  const target = { kind: 'image', id: entry.id, name: imageName };
  const operation = newOperation(api, call, {
    method: 'DeleteImage',
    requestId: request.requestId,
    target,
    saga: DELETE_IMAGE,
  });
  const closed = {
    ...entry.record,
    meta: { ...meta, deleting: true },
    status: { ...status, phase: ImagePhase.DELETING },
  };
  return {
    compare: [unchanged('image', entry)],
    writes: [putRecord('image', entry.id, closed), operation.write],
    ids: { operationId: operation.id, resourceId: entry.id },
    extra: null,
  };
}
