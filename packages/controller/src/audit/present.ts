// SPDX-License-Identifier: Apache-2.0
import { canonicalSerial } from '@busbar/pki/purpose';
import type { AuditFilter, AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { plainAddress } from '../api/arrival.ts';
import type { Entry } from '../view/table.ts';

export function presentAuditRecord({ record, createRevision }: Entry<AuditRecord>): AuditRecord {
  return { ...record, revision: createRevision, revisionAfter: record.changed ? createRevision : 0n };
}

export function matchesAudit(record: AuditRecord, filter: AuditFilter | undefined): boolean {
  if (filter === undefined) return true;
  const { caller, target, methodPrefix, since, certificateSerial, address } = filter;
  if (caller !== '' && record.caller !== caller) return false;
  if (target !== '' && record.target?.id !== target && record.target?.name !== target) return false;
  if (certificateSerial !== '' && record.certificateSerial !== canonicalSerial(certificateSerial)) return false;
  if (address !== '' && record.address !== plainAddress(address)) return false;
  const short = record.method.slice(record.method.indexOf('/') + 1);
  if (!record.method.startsWith(methodPrefix) && !short.startsWith(methodPrefix)) return false;
  return since === undefined || (record.time?.getTime() ?? 0) >= since.getTime();
}
