// SPDX-License-Identifier: Apache-2.0
import {
  Event,
  type EventFilter,
  EventServiceDefinition,
  EventSeverity,
  ListEventsRequest,
  WatchEventsResponse,
} from '@busbar/proto/gen/busbar/v1/event';
import { formatAge, formatEnum } from '../output/format.ts';
import { type Listed, PAGE_SIZE } from '../resource/resource.ts';

export const events: Listed<Event, EventFilter> = {
  singular: 'event',
  plural: 'events',
  columns: [
    { header: 'AGE', value: (event, now) => formatAge(event.time, now), right: true },
    {
      header: 'SEVERITY',
      value: (event) => formatEnum(event.severity, 'EVENT_SEVERITY'),
      colour: (event) =>
        event.severity === EventSeverity.ERROR ? 'red' : event.severity === EventSeverity.WARNING ? 'yellow' : 'dim',
    },
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
