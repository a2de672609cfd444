// SPDX-License-Identifier: Apache-2.0
import type { HostRecord, HostStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { HostState } from '@busbar/proto/gen/busbar/v1/host';
import { because, type EventDraft, error, info, warning } from '../event/draft.ts';

export function hostEvents(before: HostRecord | undefined, after: HostRecord | undefined): readonly EventDraft[] {
  if (after === undefined) return [];
  if (before === undefined) return [info('HOST_JOINED', 'joined the cluster')];
  const [was, is] = [before.spec?.unschedulable === true, after.spec?.unschedulable === true];
  if (was === is) return [];
  return is
    ? [info('HOST_UNSCHEDULABLE', 'takes no new VMs any more')]
    : [info('HOST_SCHEDULABLE', 'takes new VMs again')];
}

export function hostStatusEvents(
  before: HostStatusRecord | undefined,
  after: HostStatusRecord | undefined,
): readonly EventDraft[] {
  if (after === undefined) return [];
  const events: EventDraft[] = [];
  if (before !== undefined && before.bootId !== '' && after.bootId !== '' && before.bootId !== after.bootId)
    events.push(warning('HOST_REBOOTED', 'was booted anew', { bootId: after.bootId }));
  if (before?.state !== after.state) events.push(...stateEvents(after));
  return events;
}

function stateEvents({ state, message }: HostStatusRecord): readonly EventDraft[] {
  switch (state) {
    case HostState.READY:
      return [info('HOST_READY', because('is ready', message))];
    case HostState.DEGRADED:
      return [warning('HOST_DEGRADED', because('is not usable', message))];
    case HostState.UNREACHABLE:
      return [error('HOST_UNREACHABLE', because('is unreachable', message))];
    // Not known yet: what it turns out to be is told.
    default:
      return [];
  }
}
