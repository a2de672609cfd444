// SPDX-License-Identifier: Apache-2.0
import {
  type AuditFilter,
  AuditRecord,
  AuditServiceDefinition,
  ListAuditRecordsRequest,
  WatchAuditRecordsResponse,
} from '@busbar/proto/gen/busbar/v1/audit';
import { formatAge } from '../output/format.ts';
import { ageColumn } from '../resource/columns.ts';
import { type Listed, PAGE_SIZE } from '../resource/resource.ts';

export const auditRecords: Listed<AuditRecord, AuditFilter> = {
  singular: 'audit record',
  plural: 'auditRecords',
  message: 'busbar.v1.AuditRecord',
  columns: [
    ageColumn((record) => record.time),
    { header: 'CALLER', value: (record) => record.caller },
    { header: 'METHOD', value: (record) => record.method.slice(record.method.indexOf('/') + 1) },
    {
      header: 'TARGET',
      value: ({ target }) => (target === undefined ? '-' : `${target.kind}/${target.name || target.id}`),
    },
    {
      header: 'RESULT',
      value: resultOf,
      colour: (record) => (record.changed ? 'green' : record.reason === '' ? 'dim' : 'red'),
    },
    { header: 'SERIAL', value: (record) => record.certificateSerial, wide: true },
    { header: 'ADDRESS', value: (record) => record.address, wide: true },
    { header: 'VIA', value: (record) => record.transport, wide: true },
    { header: 'CONTROLLER', value: (record) => record.controller, wide: true },
    {
      header: 'OPEN',
      value: ({ streamBeginTime: begin, streamEndTime: end }) =>
        begin === undefined ? '' : end === undefined ? 'began' : formatAge(begin, end),
      wide: true,
    },
    { header: 'MESSAGE', value: (record) => record.message, shrinks: true },
  ],
  id: (record) => record.id,
  name: (record) => record.id,
  toJson: (record) => AuditRecord.toJSON(record),
  async list(api, pageToken, filter) {
    const request = ListAuditRecordsRequest.create({ pageSize: PAGE_SIZE, pageToken, filter });
    const page = await api.call(AuditServiceDefinition, (client, options) => client.listAuditRecords(request, options));
    return { items: page.auditRecords, nextPageToken: page.nextPageToken, revision: page.revision };
  },
  async watch(api, revision, options, filter) {
    const { client, address, failed } = await api.open(AuditServiceDefinition);
    return { address, failed, changes: changes(client.watchAuditRecords({ revision, filter }, options)) };
  },
};

function resultOf(record: AuditRecord): string {
  if (record.reason !== '') return record.reason;
  return record.validateOnly ? 'ok (dry run)' : 'ok';
}

async function* changes(stream: AsyncIterable<WatchAuditRecordsResponse>) {
  for await (const message of stream) {
    const { change, auditRecord, progress } = message;
    yield { change, item: auditRecord, progress: progress?.revision, json: WatchAuditRecordsResponse.toJSON(message) };
  }
}
