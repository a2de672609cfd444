// SPDX-License-Identifier: Apache-2.0
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import {
  type Event,
  type EventFilter,
  type EventServiceDefinition,
  EventSeverity,
  type WatchEventsResponse,
} from '@busbar/proto/gen/busbar/v1/event';
import { z } from 'zod';
import type { Api } from '../api/call.ts';
import { pageByAge, pageFields } from '../api/pages.ts';
import type { Service } from '../api/service.ts';
import { revision, time } from '../api/validation.ts';
import { watchTable } from '../api/watch.ts';
import { text } from '../bounds/schema.ts';
import { matchesEvent, presentEvent } from './present.ts';

const SEVERITIES = [EventSeverity.UNSPECIFIED, EventSeverity.INFO, EventSeverity.WARNING, EventSeverity.ERROR] as const;

const filter = z
  .object({
    subjectKind: text(32, 'a kind such as vm or host'),
    subject: text(253, 'a name or an id'),
    minSeverity: z.enum(SEVERITIES, `one of ${SEVERITIES.join(', ')}`),
    since: time,
    reason: text(64, 'a reason such as VM_STARTED'),
  })
  .optional();

export function eventService(api: Api): Service<typeof EventServiceDefinition> {
  return {
    listEvents: {
      access: 'read',
      schema: z.object({ ...pageFields, filter }),
      async handle(request) {
        const revisionNow = await api.view.fresh();
        const { items, nextPageToken } = await pageByAge(api.view, 'event', request, api.clock, (record) =>
          matchesEvent(record, request.filter),
        );
        return { events: items.map(presentEvent), nextPageToken, revision: revisionNow };
      },
    },
    watchEvents: {
      access: 'read',
      place: 'watch',
      schema: z.object({ revision, filter }),
      handle: (request, call) =>
        watchTable<Event, WatchEventsResponse>(api, call, request.revision, {
          kinds: ['event'],
          ids: () => api.view.tables.event.placesByAge().map(({ id }) => id),
          present: (id) => presented(api, id, request.filter),
          put: (event) => ({ change: ChangeKind.PUT, event }),
          // No longer kept, or not asked for.
          gone: () => null,
          mark: (change, progress) => ({ change, event: undefined, progress }),
          shared: null,
        }),
    },
  };
}

function presented(api: Api, id: string, wanted: EventFilter | undefined): Event | null {
  const entry = api.view.tables.event.get(id);
  return entry !== undefined && matchesEvent(entry.record, wanted) ? presentEvent(entry) : null;
}
