// SPDX-License-Identifier: Apache-2.0
import { isIP } from 'node:net';
import type {
  AuditFilter,
  AuditRecord,
  AuditServiceDefinition,
  WatchAuditRecordsResponse,
} from '@busbar/proto/gen/busbar/v1/audit';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { z } from 'zod';
import { ADDRESS_MAX } from '../api/arrival.ts';
import type { Api } from '../api/call.ts';
import { pageByAge, pageFields } from '../api/pages.ts';
import type { Service } from '../api/service.ts';
import { revision, time } from '../api/validation.ts';
import { watchTable } from '../api/watch.ts';
import { text, word } from '../bounds/schema.ts';
import { matchesAudit, presentAuditRecord } from './present.ts';

const filter = z
  .object({
    caller: text(253, 'an identity such as client/admin'),
    target: text(253, 'a name or an id'),
    methodPrefix: text(253, 'the beginning of a method, e.g. busbar.v1.VmService/ or Delete'),
    since: time,
    certificateSerial: word(96, /^[0-9A-Fa-f:]*$/, 'a serial in hexadecimal'),
    address: text(ADDRESS_MAX, 'an IP address').refine(
      (value) => value === '' || isIP(value.split('%')[0] ?? '') !== 0,
      'an IP address',
    ),
  })
  .optional();

/** Every role may read: an auditor changes nothing, so a viewer's certificate is what to give one. */
export function auditService(api: Api): Service<typeof AuditServiceDefinition> {
  return {
    listAuditRecords: {
      access: 'read',
      schema: z.object({ ...pageFields, filter }),
      async handle(request) {
        const revisionNow = await api.view.fresh();
        const { items, nextPageToken } = await pageByAge(api.view, 'audit', request, api.clock, (record) =>
          matchesAudit(record, request.filter),
        );
        return { auditRecords: items.map(presentAuditRecord), nextPageToken, revision: revisionNow };
      },
    },
    watchAuditRecords: {
      access: 'read',
      place: 'watch',
      schema: z.object({ revision, filter }),
      handle: (request, call) =>
        watchTable<AuditRecord, WatchAuditRecordsResponse>(api, call, request.revision, {
          kinds: ['audit'],
          ids: () => api.view.tables.audit.placesByAge().map(({ id }) => id),
          present: (id) => presented(api, id, request.filter),
          put: (auditRecord) => ({ change: ChangeKind.PUT, auditRecord }),
          // No longer kept, or not asked for.
          gone: () => null,
          mark: (change, progress) => ({ change, auditRecord: undefined, progress }),
          shared: null,
        }),
    },
  };
}

function presented(api: Api, id: string, wanted: AuditFilter | undefined): AuditRecord | null {
  const entry = api.view.tables.audit.get(id);
  return entry !== undefined && matchesAudit(entry.record, wanted) ? presentAuditRecord(entry) : null;
}
