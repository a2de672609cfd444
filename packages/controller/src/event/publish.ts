// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Revision } from '@busbar/core/ids';
import type { ClusterView } from '../view/view.ts';
import type { EventBus } from './bus.ts';
import { presentEvent } from './present.ts';

/**
 * What a new leader sends again: how far the former one came is known to nobody, and writing it down would cost a transaction
 * per event. A change of leaders takes 4 s, a slow one 15 s. Message ids tell consumers what they have already.
 */
export const REPEAT_MS = 30_000;

/** Hands the bus every event as the view learns of it. The leader's alone; disposing ends it. */
export function publishEvents(deps: {
  readonly view: ClusterView;
  readonly bus: EventBus;
  readonly clock: Pick<Clock, 'wallTime'>;
}): Disposable {
  const { view, bus } = deps;
  const { tables, changes } = view;
  let { era } = changes;
  let sent = view.revision;

  function repeat(): void {
    const from = deps.clock.wallTime().getTime() - REPEAT_MS;
    for (const entry of tables.event.oldestFirst())
      if ((entry.record.time?.getTime() ?? 0) >= from) bus.publish(presentEvent(entry));
  }

  function follow(): void {
    const news = changes.era === era ? changes.since(sent as Revision) : null;
    sent = view.revision;
    era = changes.era;
    // More happened than the view remembers, or the store was restored.
    if (news === null) repeat();
    for (const { kind, id } of news ?? []) {
      const entry = kind === 'event' ? tables.event.get(id) : undefined;
      if (entry !== undefined) bus.publish(presentEvent(entry));
    }
  }

  repeat();
  return changes.onFlush(follow);
}
