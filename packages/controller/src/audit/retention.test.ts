// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { Event, EventSeverity } from '@busbar/proto/gen/busbar/v1/event';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { expiredEvents } from '../event/retention.ts';
import { CleanUp } from '../leader/clean-up.ts';
import { expired } from '../operation/create.ts';
import { encodeRecord, putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';
import { Table } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { AUDIT_SORTS, roomFor, sortOf } from './policy.ts';
import { expiredAuditRecords } from './retention.ts';
import { AuditTally } from './tally.ts';

const NOW = new Date('2030-06-01T00:00:00Z');
const DAY_MS = 24 * 3_600_000;
const daysAgo = (days: number) => new Date(NOW.getTime() - days * DAY_MS);

function viewOf(of: { event?: readonly Event[] }): ClusterView {
  const event = new Table('event');
  const place = (i: number) => ({ createRevision: BigInt(i + 1) as never, modRevision: BigInt(i + 1) as never });
  for (const [i, record] of (of.event ?? []).entries()) event.set({ id: record.id, record, ...place(i) });
  return { tables: { event } } as unknown as ClusterView;
}
const ids = (writes: readonly { readonly key: string }[]) => writes.map(({ key }) => key.split('/').at(-1));
const record = (id: string, changed: boolean, time = NOW) => AuditRecord.fromPartial({ id, changed, time });
const event = (id: string, subject: string, time = NOW) =>
  Event.fromPartial({ id, time, severity: EventSeverity.INFO, subject: { kind: 'vm', id: subject } });
const many = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));

const policy = { keepDays: 90, keepRefusedDays: 30, records: 1_000 };
/** 800 places for changes, 100 for consoles, 100 for refusals; 70 of 100 are kept freely. */
function gone(records: readonly AuditRecord[]): readonly (string | undefined)[] {
  const tally = new AuditTally();
  for (const each of records) tally.put(each.id, encodeRecord('audit', each));
  return ids(expiredAuditRecords(tally, policy, NOW));
}
const by = (caller: string, id: string, ageDays: number, more: Partial<AuditRecord> = {}) =>
  AuditRecord.fromPartial({ id, caller, changed: true, time: daysAgo(ageDays), ...more });
const refused = { changed: false, reason: 'ROLE_TOO_LOW' };

describe('audit records', () => {
  it('stay beyond their time while there is room', () => {
    expect(gone(many(560, (i) => by('client/anna', `a${i}`, 300)))).toEqual([]);
  });

  it('never go before their time, however many there are', () => {
    expect(gone(many(20_000, (i) => by('client/mallory', `m${i}`, 89)))).toEqual([]);
    expect(gone(many(5_000, (i) => by('client/mallory', `m${i}`, 29, refused)))).toEqual([]);
    expect(gone(many(5_000, (i) => by('client/mallory', `m${i}`, 89, { changed: false })))).toEqual([]);
  });

  it('beyond their time go when room is short: the oldest of whoever has the most', () => {
    const anna = many(40, (i) => by('client/anna', `a${i}`, 200 - i));
    const mallory = many(700, (i) => by('client/mallory', `m${i}`, i < 300 ? 100 - i / 100 : 1));
    const went = gone([...anna, ...mallory]);
    expect(went).toEqual(many(180, (i) => `m${i}`));
  });

  it('whose time cannot be read, or that are of a later version, stay', () => {
    const tally = new AuditTally();
    for (let i = 0; i < 2_000; i++) tally.put(`x${i}`, i % 2 === 0 ? '{"caller":"client/a","changed":true}' : 'later');
    expect(expiredAuditRecords(tally, policy, NOW)).toEqual([]);
    expect(tally.total('changes')).toBe(2_000);
  });

  it('of refusals, of consoles and of changes do not push each other out', () => {
    const old = [
      ...many(500, (i) => by('client/anna', `c${i}`, 300)),
      ...many(70, (i) => by('client/anna', `k${i}`, 300, { changed: false })),
      ...many(71, (i) => by('client/anna', `r${i}`, 300, refused)),
    ];
    expect(gone(old)).toEqual(['r0']);
  });

  it('younger than the floor are never removed, for any callers, times and numbers', () => {
    const one = fc.record({
      caller: fc.constantFrom('client/anna', 'client/mallory', 'nobody', 'host/host1'),
      ageDays: fc.integer({ min: -10, max: 400 }),
      kind: fc.constantFrom<Partial<AuditRecord>>({}, refused, { changed: false }, { ...refused, validateOnly: true }),
      times: fc.integer({ min: 1, max: 300 }),
    });
    fc.assert(
      fc.property(fc.array(one, { maxLength: 12 }), (groups) => {
        const records = groups.flatMap(({ caller, ageDays, kind, times }, g) =>
          many(times, (i) => by(caller, `${g}-${i}`, ageDays, kind)),
        );
        const went = new Set(gone(records));
        for (const each of records) {
          const floorDays = sortOf(each) === 'refusals' ? 30 : 90;
          if ((each.time?.getTime() ?? 0) >= NOW.getTime() - floorDays * DAY_MS) expect(went.has(each.id)).toBe(false);
        }
        // What may go makes room, as far as it goes.
        for (const sort of AUDIT_SORTS) {
          const kept = records.filter((each) => sortOf(each) === sort && !went.has(each.id));
          const mayGo = kept.filter(({ time }) => (time?.getTime() ?? 0) < NOW.getTime() - 90 * DAY_MS);
          expect(
            kept.length <= Math.floor(0.7 * roomFor(policy, sort)) || mayGo.length === 0 || went.size === 1_000,
          ).toBe(true);
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe('the clean-up', () => {
  it('removes both, and nothing else', async () => {
    const rig = new Rig(1, undefined, undefined, policy);
    await rig.start();
    const now = rig.clock.wallTime().getTime();
    const [day, old] = [new Date(now - DAY_MS), new Date(now - 100 * DAY_MS)];
    const { store, storage } = rig.api;
    const records = [...many(950, (i) => record(`old-${i}`, true, old)), record('new', true, day)];
    const events = [event('old', 'x', old), event('new', 'x', day)];
    for (const writes of [
      ...many(10, (i) => records.slice(100 * i, 100 * i + 100).map((each) => putRecord('audit', each.id, each))),
      events.map((each) => putRecord('event', each.id, each)),
    ])
      await rig.run(rig.view.waitFor((await rig.run(store.txn({ compare: [], writes }))).revision));
    const leader = { term: 1n, signal: new AbortController().signal, txn: store.txn.bind(store) };
    const cleanUp = new CleanUp(
      { audit: rig.room, store, view: rig.view, storage, clock: rig.clock, logger: silentLogger },
      leader,
    );
    await rig.run(cleanUp.round());
    await rig.clock.advance(1_000);
    expect(rig.view.tables.audit.size).toBe(560);
    expect([...rig.view.tables.audit.ids()].at(-1)).toBe('new');
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

  it('of things that somebody makes by the thousand push out only their like', () => {
    const lost = Event.fromPartial({
      id: 'lost',
      time: NOW,
      severity: EventSeverity.ERROR,
      subject: { kind: 'host', id: 'host2' },
    });
    const failed = Event.fromPartial({ ...event('failed', 'scada-1'), severity: EventSeverity.ERROR });
    const view = viewOf({ event: [lost, failed, ...many(6_000, (i) => event(`e${i}`, `vm${i}`))] });
    expect(ids(expiredEvents(view, NOW))).toEqual(many(1_002, (i) => `e${i}`));
  });

  it('are 5,000 at most', () => {
    const view = viewOf({ event: many(5_010, (i) => event(`e${i}`, `vm${i}`)) });
    expect(ids(expiredEvents(view, NOW))).toEqual(many(10, (i) => `e${i}`));
  });
});

describe('ended operations', () => {
  const ended = (id: string, createdBy: string, hoursAgo: number) => {
    const endTime = new Date(NOW.getTime() - hoursAgo * 3_600_000);
    const operation = { id, createdBy, state: OperationState.SUCCEEDED, endTime };
    return OperationRecord.fromPartial({ operation });
  };
  const gone = (records: readonly OperationRecord[]) => {
    const operation = new Table('operation');
    for (const [i, record] of records.entries())
      operation.set({
        id: record.operation?.id ?? '',
        record,
        createRevision: BigInt(i) as never,
        modRevision: 1n as never,
      });
    const view = { tables: { operation } } as unknown as ClusterView;
    return ids(expired({ view, clock: { wallTime: () => NOW } as Clock }));
  };

  it('go after a day', () => {
    expect(gone([ended('old', 'client/anna', 25), ended('new', 'client/anna', 23)])).toEqual(['old']);
  });

  it('of whoever begins a thousand push out only his own', () => {
    const mallory = many(1_500, (i) => ended(`m${i}`, 'client/mallory', 10 - i / 1_000));
    expect(gone([ended('a', 'client/anna', 20), ...mallory])).toEqual(many(501, (i) => `m${i}`));
  });
});
