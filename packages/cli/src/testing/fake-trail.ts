// SPDX-License-Identifier: Apache-2.0
/** Audit and events of the fake cluster: what a test puts in comes out, with the filter that was asked for noted. */
import { AuditRecord, type AuditServiceImplementation } from '@busbar/proto/gen/busbar/v1/audit';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { Event, type EventServiceImplementation, EventSeverity } from '@busbar/proto/gen/busbar/v1/event';

export class FakeTrail {
  readonly events: Event[] = [];
  readonly auditRecords: AuditRecord[] = [];
  /** Filters as they arrived. */
  readonly filters: unknown[] = [];

  addEvent(
    reason: string,
    name: string,
    message: string,
    time: Date,
    severity: EventSeverity = EventSeverity.INFO,
  ): void {
    const subject = { kind: 'vm', id: `id-${name}`, name };
    this.events.push(Event.fromPartial({ id: reason, reason, severity, subject, message, time }));
  }

  addAudit(record: Parameters<typeof AuditRecord.fromPartial>[0]): void {
    this.auditRecords.push(AuditRecord.fromPartial({ caller: 'client/anna', role: 'operator', ...record }));
  }

  readonly eventService: EventServiceImplementation = {
    listEvents: async ({ filter }) => {
      this.filters.push(filter);
      return { events: this.events.toReversed(), revision: 7n };
    },
    watchEvents: (request) => this.#watchEvents(request.filter),
  };

  readonly auditService: AuditServiceImplementation = {
    listAuditRecords: async ({ filter }) => {
      this.filters.push(filter);
      return { auditRecords: this.auditRecords.toReversed(), revision: 7n };
    },
    watchAuditRecords: (request) => this.#watchAudit(request.filter),
  };

  async *#watchEvents(filter: unknown) {
    this.filters.push(filter);
    for (const event of this.events) yield { change: ChangeKind.PUT, event };
    yield { change: ChangeKind.PROGRESS, progress: { revision: 7n } };
    await new Promise(() => {});
  }

  async *#watchAudit(filter: unknown) {
    this.filters.push(filter);
    for (const auditRecord of this.auditRecords) yield { change: ChangeKind.PUT, auditRecord };
    yield { change: ChangeKind.PROGRESS, progress: { revision: 7n } };
    await new Promise(() => {});
  }
}
