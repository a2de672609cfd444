// SPDX-License-Identifier: Apache-2.0
import { type Event, EventSeverity } from '@busbar/proto/gen/busbar/v1/event';
import { deleteRecord } from '../records/kinds.ts';
import { surplus } from '../records/surplus.ts';
import type { Write } from '../store/cluster-store.ts';
import type { Entry } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';

/** An event is 0.3 KB in etcd and 0.6 KB in the memory of each controller: 1.5 MB and 3 MB. */
export const KEPT_EVENTS = 5_000;
/** A VM that ends again and again, or a host whose link flaps, must not push out what happened to the others. */
export const KEPT_OF_SUBJECT = 200;
/** Long enough for a Monday's look at the weekend before; whoever wants more subscribes. */
export const KEPT_MS = 7 * 24 * 3_600_000;

/** Events that are no longer to be kept. */
export function expiredEvents(view: ClusterView, wallTime: Date): readonly Write[] {
  const ofSubject = new Map<string, number>();
  const gone: string[] = [];
  const kept: Entry<Event>[] = [];
  for (const entry of view.tables.event.oldestFirst().toReversed()) {
    const { id, record } = entry;
    const subject = `${record.subject?.kind}/${record.subject?.id}`;
    const count = (ofSubject.get(subject) ?? 0) + 1;
    ofSubject.set(subject, count);
    const old = wallTime.getTime() - (record.time?.getTime() ?? 0) > KEPT_MS;
    if (old || count > KEPT_OF_SUBJECT) gone.push(id);
    else kept.push(entry);
  }
  // Whoever makes and deletes volumes by the thousand has as many subjects, and pushes out what happened to volumes, but not
  // that a host was lost: the kind of thing with the most events gives way, and what is no more than information by itself.
  const sortOf = ({ record }: Entry<Event>) =>
    `${record.subject?.kind} ${record.severity === EventSeverity.INFO ? 'information' : 'trouble'}`;
  const tooMany = surplus(kept.toReversed(), kept.length - KEPT_EVENTS, sortOf).map(({ id }) => id);
  return [...gone, ...tooMany].map((id) => deleteRecord('event', id));
}
