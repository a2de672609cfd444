// SPDX-License-Identifier: Apache-2.0
// Which events a change of a record is worth. Pure: a table per noun, from the record before and after.
import type { ResourceRef } from '@busbar/proto/gen/busbar/v1/common';
import { alarmEvents, alarmSubject } from '../alarm/events.ts';
import { hostEvents, hostStatusEvents } from '../host/events.ts';
import { imageEvents } from '../image/events.ts';
import { networkEvents } from '../network/events.ts';
import { operationEvents } from '../operation/events.ts';
import type { Kind, RecordOf } from '../records/kinds.ts';
import { vmStatusEvents } from '../vm/events.ts';
import { volumeEvents } from '../volume/events.ts';
import type { EventDraft } from './draft.ts';

/** The name that a resource has, or had before this change. */
export type NameOf = (kind: 'vm', id: string) => string;

interface Source<T> {
  readonly events: (before: T | undefined, after: T | undefined) => readonly EventDraft[];
  readonly subject: (id: string, record: T, nameOf: NameOf) => ResourceRef;
}

const named = (kind: string) => (id: string, record: { readonly meta?: { readonly name: string } | undefined }) => ({
  kind,
  id,
  name: record.meta?.name ?? '',
});

const SOURCES: { readonly [K in Kind]?: Source<RecordOf<K>> } = {
  'vm-status': { events: vmStatusEvents, subject: (id, _, nameOf) => ({ kind: 'vm', id, name: nameOf('vm', id) }) },
  host: { events: hostEvents, subject: named('host') },
  'host-status': { events: hostStatusEvents, subject: (id) => ({ kind: 'host', id, name: id }) },
  operation: {
    events: operationEvents,
    subject: (id, { operation }) => operation?.target ?? { kind: 'operation', id, name: operation?.method ?? '' },
  },
  image: { events: imageEvents, subject: named('image') },
  volume: { events: volumeEvents, subject: named('volume') },
  network: { events: networkEvents, subject: named('network') },
  alarm: { events: alarmEvents, subject: (_, alarm) => alarmSubject(alarm) },
};

export interface SubjectEvent extends EventDraft {
  readonly subject: ResourceRef;
}

export function hasEvents(kind: Kind): boolean {
  return SOURCES[kind] !== undefined;
}

export function eventsOf<K extends Kind>(
  kind: K,
  id: string,
  before: RecordOf<K> | undefined,
  after: RecordOf<K> | undefined,
  nameOf: NameOf,
): readonly SubjectEvent[] {
  const source = SOURCES[kind] as Source<RecordOf<K>> | undefined;
  const record = after ?? before;
  if (source === undefined || record === undefined) return [];
  return source.events(before, after).map((event) => ({ ...event, subject: source.subject(id, record, nameOf) }));
}
