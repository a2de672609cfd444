// SPDX-License-Identifier: Apache-2.0
import { silentLogger } from '@busbar/core/log';
import { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { Event } from '@busbar/proto/gen/busbar/v1/event';
import { describe, expect, it } from 'vitest';
import { expiredEvents } from '../event/retention.ts';
import { CleanUp } from '../leader/clean-up.ts';
import { putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';
import { Table } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { expiredAuditRecords } from './retention.ts';

const NOW = new Date('2030-06-01T00:00:00Z');
const DAY_MS = 24 * 3_600_000;
const daysAgo = (days: number) => new Date(NOW.getTime() - days * DAY_MS);

function viewOf(of: { audit?: readonly AuditRecord[]; event?: readonly Event[] }): ClusterView {
  const [audit, event] = [new Table('audit'), new Table('event')];
  const place = (i: number) => ({ createRevision: BigInt(i + 1) as never, modRevision: BigInt(i + 1) as never });
  for (const [i, record] of (of.audit ?? []).entries()) audit.set({ id: record.id, record, ...place(i) });
  for (const [i, record] of (of.event ?? []).entries()) event.set({ id: record.id, record, ...place(i) });
  return { tables: { audit, event } } as unknown as ClusterView;
}
const ids = (writes: readonly { readonly key: string }[]) => writes.map(({ key }) => key.split('/').at(-1));
const record = (id: string, changed: boolean, time = NOW) => AuditRecord.fromPartial({ id, changed, time });
const event = (id: string, subject: string, time = NOW) =>
  Event.fromPartial({ id, time, subject: { kind: 'vm', id: subject } });
const many = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));

describe('audit records', () => {
  it('go after 90 days', () => {
    const view = viewOf({ audit: [record('old', true, daysAgo(91)), record('new', true, daysAgo(89))] });
    expect(ids(expiredAuditRecords(view, NOW))).toEqual(['old']);
  });

  it('of refusals cannot push out those of changes, nor the other way', () => {
    const view = viewOf({
      audit: [
        record('first change', true),
        ...many(7_999, (i) => record(`c${i}`, true)),
        record('first refusal', false),
        ...many(2_003, (i) => record(`r${i}`, false)),
      ],
    });
    expect(ids(expiredAuditRecords(view, NOW))).toEqual(['first refusal', 'r0', 'r1', 'r2']);
    const more = viewOf({ audit: many(8_002, (i) => record(`c${i}`, true)) });
    expect(ids(expiredAuditRecords(more, NOW))).toEqual(['c0', 'c1']);
  });
});

describe('the clean-up', () => {
  it('removes both, and nothing else', async () => {
    const rig = new Rig();
    await rig.start();
    const now = rig.clock.wallTime().getTime();
    const [day, old] = [new Date(now - DAY_MS), new Date(now - 100 * DAY_MS)];
    const { store, storage } = rig.api;
    const records = [...many(150, (i) => record(`old-${i}`, i % 2 === 0, old)), record('new', true, day)];
    const events = [event('old', 'x', old), event('new', 'x', day)];
    for (const writes of [
      records.slice(0, 100).map((each) => putRecord('audit', each.id, each)),
      records.slice(100).map((each) => putRecord('audit', each.id, each)),
      events.map((each) => putRecord('event', each.id, each)),
    ])
      await rig.run(rig.view.waitFor((await rig.run(store.txn({ compare: [], writes }))).revision));
    const leader = { term: 1n, signal: new AbortController().signal, txn: store.txn.bind(store) };
    const cleanUp = new CleanUp({ store, view: rig.view, storage, clock: rig.clock, logger: silentLogger }, leader);
    await rig.run(cleanUp.round());
    await rig.clock.advance(1_000);
    expect([...rig.view.tables.audit.ids()]).toEqual(['new']);
    expect([...rig.view.tables.event.ids()]).toEqual(['new']);
    expect(rig.view.tables.host.size).toBe(1);
    rig.stop();
  });
});

describe('events', () => {
  it('go after a week', () => {
    expect(
      ids(expiredEvents(viewOf({ event: [event('a', 'x', daysAgo(8)), event('b', 'x', daysAgo(6))] }), NOW)),
    ).toEqual(['a']);
  });

  it('of one subject cannot push out those of others', () => {
    const view = viewOf({ event: [event('quiet', 'quiet'), ...many(6_000, (i) => event(`e${i}`, 'flapping'))] });
    const gone = ids(expiredEvents(view, NOW));
    expect(gone).toHaveLength(5_800);
    expect(gone).not.toContain('quiet');
    expect(gone).not.toContain('e5999');
  });

  it('are 5,000 at most', () => {
    const view = viewOf({ event: many(5_010, (i) => event(`e${i}`, `vm${i}`)) });
    expect(ids(expiredEvents(view, NOW)).toReversed()).toEqual(many(10, (i) => `e${i}`));
  });
});
