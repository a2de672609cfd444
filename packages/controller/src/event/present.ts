// SPDX-License-Identifier: Apache-2.0
import { type Event, type EventFilter, EventSeverity } from '@busbar/proto/gen/busbar/v1/event';
import type { Entry } from '../view/table.ts';

export function presentEvent({ record, createRevision }: Entry<Event>): Event {
  return { ...record, revision: createRevision };
}

const BY_SEVERITY: readonly EventSeverity[] = [EventSeverity.INFO, EventSeverity.WARNING, EventSeverity.ERROR];

export function matchesEvent(event: Event, filter: EventFilter | undefined): boolean {
  if (filter === undefined) return true;
  const { subjectKind, subject, minSeverity, since, reason } = filter;
  if (subjectKind !== '' && event.subject?.kind !== subjectKind) return false;
  if (subject !== '' && event.subject?.id !== subject && event.subject?.name !== subject) return false;
  if (BY_SEVERITY.indexOf(event.severity) < BY_SEVERITY.indexOf(minSeverity)) return false;
  if (reason !== '' && event.reason !== reason) return false;
  return since === undefined || (event.time?.getTime() ?? 0) >= since.getTime();
}
