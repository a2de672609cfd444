// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Random } from '@busbar/core/random';
import { type Kind, parseRecordKey, putRecord, recordIn, recordKey } from '../records/kinds.ts';
import type { Compare, Transaction, Write } from '../store/cluster-store.ts';
import { absent, type Entry, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { eventsOf, hasEvents, type NameOf, type SubjectEvent } from './derive.ts';

/**
 * Transactional outbox: the events of a change are written in its transaction, so that none is missed when a leader
 * dies and none is told twice. Both doors through which records change call this: mutate() and the leader's txn().
 *
 * An event tells of the record as the view has it; the transaction compares that this is what it replaces. Where the caller's
 * own comparisons do not say so, one is added: a view that lags then costs a failed transaction and never a wrong event.
 */
export interface OutboxDeps {
  readonly view: ClusterView;
  readonly clock: Pick<Clock, 'wallTime'>;
  readonly random: Random;
}

/** More than any change of today makes; keeps a transaction within the store's limit of 128 writes. */
const EVENTS_MAX = 16;
/** What a door adds besides: audit record, request id. */
const RESERVED_WRITES = 2;
const WRITES_MAX = 128;

export function withEvents(deps: OutboxDeps, transaction: Transaction): Transaction {
  const { view } = deps;
  const compare: Compare[] = [...transaction.compare];
  const events: SubjectEvent[] = [];
  const nameOf: NameOf = (kind, id) => nameIn(transaction.writes, kind, id) || nameInView(view, kind, id);
  for (const write of transaction.writes) {
    const key = parseRecordKey(write.key);
    if (key === null || !hasEvents(key.kind)) continue;
    const entry = view.tables[key.kind].get(key.id) as Entry<never> | undefined;
    const found = eventsOf(key.kind, key.id, entry?.record, recordIn(key.kind, write), nameOf);
    if (found.length === 0) continue;
    events.push(...found);
    const replaced = entry === undefined ? absent(write.key) : unchanged(key.kind, entry);
    if (!compare.some((other) => other.target === 'mod' && other.key === write.key)) compare.push(replaced);
  }
  if (events.length === 0) return transaction;
  const room = Math.min(EVENTS_MAX, WRITES_MAX - RESERVED_WRITES - transaction.writes.length);
  return { compare, writes: [...transaction.writes, ...limited(events, room).map((event) => putEvent(deps, event))] };
}

/** Which ones are left out when there is no room: the last; the last one that is told says how many. */
function limited(events: readonly SubjectEvent[], room: number): readonly SubjectEvent[] {
  if (events.length <= room) return events;
  const kept = events.slice(0, Math.max(0, room));
  const omitted = String(events.length - kept.length);
  return kept.map((event, i) =>
    i === kept.length - 1 ? { ...event, attributes: { ...event.attributes, omitted } } : event,
  );
}

export function putEvent(
  deps: Pick<OutboxDeps, 'clock' | 'random'>,
  event: SubjectEvent,
  id = deps.random.uuid(),
): Write {
  return putRecord('event', id, {
    id,
    time: deps.clock.wallTime(),
    severity: event.severity,
    reason: event.reason,
    subject: event.subject,
    message: event.message,
    attributes: { ...event.attributes },
    // Its own: known once it is read.
    revision: 0n,
  });
}

function nameIn(writes: readonly Write[], kind: 'vm', id: string): string {
  const write = writes.find((each) => each.key === recordKey(kind, id));
  return (write === undefined ? undefined : recordIn(kind, write))?.meta?.name ?? '';
}

function nameInView(view: ClusterView, kind: Extract<Kind, 'vm'>, id: string): string {
  return view.tables[kind].get(id)?.record.meta?.name ?? '';
}
