// SPDX-License-Identifier: Apache-2.0
import type { Api, Call } from '../api/call.ts';
import { withEvents } from '../event/outbox.ts';
import { putRecord } from '../records/kinds.ts';
import type { Transaction, Write } from '../store/cluster-store.ts';
import { auditRecord, changeIn } from './record.ts';

export interface AuditedChange extends Transaction {
  readonly ids: { readonly operationId: string; readonly resourceId: string };
  readonly requestId: string;
}

/** A change of the API as it is written: with its audit record and its events, in one transaction. */
export function audited(api: Api, call: Call, change: AuditedChange): Transaction {
  const told = withEvents(api, change);
  return { compare: told.compare, writes: [...told.writes, auditWrite(api, call, change)] };
}

/** The audit record of a change, for its own transaction. */
export function auditWrite(api: Api, call: Call, change: AuditedChange): Write {
  // A repeat of the transaction (a lost race, a new request lease) is the same call.
  call.audit.id ??= api.random.uuid();
  const { id, method, beganTime } = call.audit;
  const time = api.clock.wallTime();
  const record = auditRecord(
    {
      id,
      time,
      method,
      controller: api.host,
      requestId: change.requestId,
      operation: change.ids.operationId,
      changed: true,
      // An import has ended when it is recorded.
      ...(beganTime === null ? {} : { streamBeginTime: beganTime, streamEndTime: time }),
      ...changeIn(api.view, change.writes, change.ids),
    },
    call.caller,
    call.arrival,
  );
  return putRecord('audit', id, record);
}
