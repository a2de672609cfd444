// SPDX-License-Identifier: Apache-2.0

import type { HostRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import type { Host, WatchHostsResponse } from '@busbar/proto/gen/busbar/v1/host';
import { type HostServiceDefinition, UpdateHostRequest } from '@busbar/proto/gen/busbar/v1/host';
import { z } from 'zod';
import type { Api, Caller } from '../api/call.ts';
import { contentOf, mutate, type Plan } from '../api/mutate.ts';
import { page, pageFields } from '../api/pages.ts';
import { assertAdministers, assertRevision, find } from '../api/refusals.ts';
import type { Service } from '../api/service.ts';
import { invalid, labels, reference, requestId, revision, show } from '../api/validation.ts';
import { watchTable } from '../api/watch.ts';
import { list, text } from '../bounds/schema.ts';
import { putRecord } from '../records/kinds.ts';
import { unchanged } from '../view/table.ts';
import { presentMeta } from '../vm/present.ts';
import { drillHost } from './drill.ts';
import { presentHost } from './present.ts';
import { administeredChanges, HOST_FIELDS, hostSpecSchema, mergeHostSpec } from './spec.ts';

const MASK = ['labels', 'spec', ...HOST_FIELDS.map((field) => `spec.${field}`), '*'];
const MASK_RULE = `one of ${MASK.join(', ')}`;

export function hostService(api: Api): Service<typeof HostServiceDefinition> {
  const present = (id: string) => presentHost(id, api.view, api.sessions);
  return {
    getHost: {
      access: 'read',
      schema: z.object({ host: reference }),
      async handle(request) {
        await api.view.fresh();
        return { host: present(find(api.view.tables.host, request.host).id) ?? undefined };
      },
    },
    listHosts: {
      access: 'read',
      schema: z.object(pageFields),
      async handle(request) {
        const revisionNow = await api.view.fresh();
        const { items, nextPageToken } = page(
          api.view.tables.host.sorted(),
          (entry) => entry.record.meta?.name ?? '',
          request,
        );
        return { hosts: items.flatMap((entry) => present(entry.id) ?? []), nextPageToken, revision: revisionNow };
      },
    },
    drillHost: {
      access: 'read',
      schema: z.object({ host: reference }),
      async handle(request) {
        await api.view.fresh();
        return drillHost(api, find(api.view.tables.host, request.host).id);
      },
    },
    updateHost: {
      access: 'write',
      schema: z.object({
        host: reference,
        labels,
        spec: hostSpecSchema.optional(),
        updateMask: list(text(64, MASK_RULE), 0, 16, 'at most 16 paths'),
        revision,
        validateOnly: z.boolean(),
        requestId,
      }),
      handle: (request, call) =>
        mutate(api, call, {
          method: 'UpdateHost',
          whileBehind: true,
          content: contentOf(UpdateHostRequest, request),
          requestId: request.requestId,
          validateOnly: request.validateOnly,
          plan: () => planUpdate(api, request, call.caller),
          preview: (plan) => {
            const now = present(plan.ids.resourceId);
            return {
              host:
                now === null ? undefined : { ...now, meta: presentMeta(plan.extra.meta, 0n), spec: plan.extra.spec },
            };
          },
          respond: (ids) => ({ host: present(ids.resourceId) ?? undefined }),
        }),
    },
    watchHosts: {
      access: 'read',
      place: 'watch',
      schema: z.object({ revision }),
      handle: (request, call) =>
        watchTable<Host, WatchHostsResponse>(api, call, request.revision, {
          kinds: ['host', 'host-status'],
          ids: () => api.view.tables.host.ids(),
          present,
          put: (host) => ({ change: ChangeKind.PUT, host }),
          gone: (id, name) => ({
            change: ChangeKind.DELETE,
            host: { meta: { ...presentMeta(undefined, 0n), id, name }, spec: undefined, status: undefined },
          }),
          mark: (change, progress) => ({ change, host: undefined, progress }),
          shared: null,
        }),
    },
  };
}

function planUpdate(api: Api, request: UpdateHostRequest, caller: Caller): Plan<HostRecord> {
  const entry = find(api.view.tables.host, request.host);
  const { meta, spec } = entry.record;
  assertRevision('host', meta?.name ?? '', entry, request.revision);
  // snake_case is what protobuf's own FieldMask uses; both are taken.
  const mask = request.updateMask.map((path) => path.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()));
  mask.forEach((path, index) => {
    if (!MASK.includes(path))
      throw invalid([
        {
          field: `updateMask[${index}]`,
          problem: `is ${show(request.updateMask[index])}`,
          expected: MASK_RULE,
        },
      ]);
  });
  const changes = (...paths: string[]) => mask.length === 0 || paths.some((path) => mask.includes(path));
  const fields = HOST_FIELDS.filter((field) => changes('spec', `spec.${field}`, '*'));
  const nextSpec = mergeHostSpec(spec, request.spec, fields);
  assertAdministers(
    caller,
    'UpdateHost',
    administeredChanges(spec, nextSpec).map((field) => `spec.${field}`),
  );
  const next: HostRecord = {
    meta:
      meta === undefined
        ? undefined
        : { ...meta, labels: changes('labels', '*') ? request.labels : meta.labels, updateTime: api.clock.wallTime() },
    spec: nextSpec,
  };
  return {
    compare: [unchanged('host', entry)],
    writes: [putRecord('host', entry.id, next)],
    ids: { operationId: '', resourceId: entry.id },
    extra: next,
  };
}
