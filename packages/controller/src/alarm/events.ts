// SPDX-License-Identifier: Apache-2.0
import { type Alarm, AlarmSeverity } from '@busbar/proto/gen/busbar/v1/alarm';
import type { ResourceRef } from '@busbar/proto/gen/busbar/v1/common';
import { type EventDraft, error, info, warning } from '../event/draft.ts';

/** The words of a standing alarm may change; only its beginning, its end and its growing urgency are events. */
export function alarmEvents(before: Alarm | undefined, after: Alarm | undefined): readonly EventDraft[] {
  if (after === undefined)
    return before === undefined ? [] : [info('ALARM_CLEARED', before.message, { code: before.code })];
  if (before !== undefined && before.severity === after.severity) return [];
  const draft = after.severity === AlarmSeverity.CRITICAL ? error : warning;
  return [draft('ALARM_RAISED', after.message, { code: after.code })];
}

/** "host/host1" → the host; "cluster" → the cluster. */
export function alarmSubject({ subject }: Alarm): ResourceRef {
  const slash = subject.indexOf('/');
  const name = subject.slice(slash + 1);
  return slash < 0 ? { kind: subject, id: subject, name: subject } : { kind: subject.slice(0, slash), id: name, name };
}
