// SPDX-License-Identifier: Apache-2.0
import {
  Event,
  type EventFilter,
  EventServiceDefinition,
  EventSeverity,
  ListEventsRequest,
  WatchEventsResponse,
} from '@busbar/proto/gen/busbar/v1/event';
import { ageColumn, enumColumn } from '../resource/columns.ts';
import { type Listed, PAGE_SIZE } from '../resource/resource.ts';

export const events: Listed<Event, EventFilter> = {
  singular: 'event',
  plural: 'events',
  message: 'busbar.v1.Event',
  columns: [
    ageColumn((event) => event.time),
    enumColumn({
      header: 'SEVERITY',
      generated: EventSeverity,
      prefix: 'EVENT_SEVERITY',
      of: (event) => event.severity,
      colour: (event) =>
        event.severity === EventSeverity.ERROR ? 'red' : event.severity === EventSeverity.WARNING ? 'yellow' : 'dim',
    }),
    { header: 'REASON', value: (event) => event.reason },
    {
      header: 'SUBJECT',
      value: ({ subject }) => (subject === undefined ? '-' : `${subject.kind}/${subject.name || subject.id}`),
    },
    { header: 'MESSAGE', value: (event) => event.message, shrinks: true },
  ],
  id: (event) => event.id,
  name: (event) => event.id,
  toJson: (event) => Event.toJSON(event),
  async list(api, pageToken, filter) {
    const request = ListEventsRequest.create({ pageSize: PAGE_SIZE, pageToken, filter });
    const page = await api.call(EventServiceDefinition, (client, options) => client.listEvents(request, options));
    return { items: page.events, nextPageToken: page.nextPageToken, revision: page.revision };
  },
  async watch(api, revision, options, filter) {
    const { client, address, failed } = await api.open(EventServiceDefinition);
    return { address, failed, changes: changes(client.watchEvents({ revision, filter }, options)) };
  },
};

async function* changes(stream: AsyncIterable<WatchEventsResponse>) {
  for await (const message of stream) {
    const { change, event, progress } = message;
    yield { change, item: event, progress: progress?.revision, json: WatchEventsResponse.toJSON(message) };
  }
}
