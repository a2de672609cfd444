// SPDX-License-Identifier: Apache-2.0
import { silentLogger } from '@busbar/core/log';
import { type Alarm, AlarmSeverity } from '@busbar/proto/gen/busbar/v1/alarm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { withEvents } from '../event/outbox.ts';
import type { Leader } from '../leader/leader.ts';
import { Rig } from '../testing/rig.ts';
import { type AlarmDraft, type Alarms, alarmId, createAlarms } from './alarm.ts';
import { planAlarms } from './plan.ts';
import { AlarmReconciler } from './reconcile.ts';

/** Goal: a condition that holds is shown, recorded and told once, however often it is looked at, and its end is told once. */
const BEHIND: AlarmDraft = {
  code: 'STORE_BEHIND',
  severity: 'critical',
  subject: 'cluster',
  message: 'host1 knows a newer term',
  hint: 'adopt what runs',
};
const FULL: AlarmDraft = { ...BEHIND, code: 'AUDIT_FULL', severity: 'warning', subject: 'host/host1', message: '75 %' };

let rig: Rig;
let holds: AlarmDraft[];
let alarms: Alarms;

beforeEach(async () => {
  rig = new Rig();
  await rig.start();
  holds = [];
  alarms = newAlarms();
});
afterEach(() => rig.stop());

function newAlarms(): Alarms {
  const { view, sessions, storage, clock } = rig.api;
  return createAlarms({ cluster: 'test', host: 'host1', view, sessions, audit: rig.room, storage, clock }, [
    () => holds,
    () => holds,
  ]);
}

function newReconciler(seenBy = alarms): AlarmReconciler {
  const { view, clock, store } = rig.api;
  const leader: Leader = {
    term: 1n,
    signal: new AbortController().signal,
    txn: (transaction) => store.txn(withEvents(rig.api, transaction)),
  };
  return new AlarmReconciler({ view, alarms: seenBy, clock, logger: silentLogger, leader });
}

async function look(reconciler: AlarmReconciler, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) {
    await rig.run(reconciler.reconcile());
    await rig.clock.advance(1_000);
  }
}

const told = () => rig.view.tables.event.oldestFirst().map(({ record }) => `${record.reason} ${record.subject?.kind}`);
const recorded = () => rig.view.tables.alarm.sorted().map(({ id }) => id);

describe('alarms', () => {
  it('are what holds now, once each, the most urgent first', () => {
    expect(alarms.all()).toEqual([]);
    holds = [FULL, BEHIND];
    expect(alarms.all().map(alarmId)).toEqual(['STORE_BEHIND.cluster', 'AUDIT_FULL.host.host1']);
    expect(alarms.all()[0]).toMatchObject({ severity: AlarmSeverity.CRITICAL, hint: 'adopt what runs' });
  });

  it('are bounded in number and in length, and the most urgent are kept', () => {
    const many = Array.from({ length: 200 }, (_, i) => ({
      ...FULL,
      subject: `host/h${i}`,
      message: 'x'.repeat(5_000),
    }));
    holds = [...many, BEHIND];
    const all = alarms.all();
    expect(all).toHaveLength(100);
    expect(all[0]?.code).toBe('STORE_BEHIND');
    expect(all[1]?.message.length).toBeLessThanOrEqual(1_000);
  });

  it('begin when they were first seen, and not anew when somebody looks', async () => {
    holds = [BEHIND];
    const [first] = alarms.all();
    await rig.clock.advance(10_000);
    expect(alarms.all()[0]?.raiseTime).toEqual(first?.raiseTime);
    holds = [];
    expect(alarms.all()).toEqual([]);
    holds = [BEHIND];
    expect(alarms.all()[0]?.raiseTime).not.toEqual(first?.raiseTime);
  });
});

describe('alarm records', () => {
  it('are written once and told once; other controllers show them, with their beginning', async () => {
    holds = [BEHIND, FULL];
    await look(newReconciler(), 20);
    expect(recorded()).toEqual(['AUDIT_FULL.host.host1', 'STORE_BEHIND.cluster']);
    expect(told()).toEqual(['ALARM_RAISED cluster', 'ALARM_RAISED host']);
    const elsewhere = newAlarms();
    const since = rig.view.tables.alarm.get('STORE_BEHIND.cluster')?.record.raiseTime;
    expect(elsewhere.all()[0]?.raiseTime).toEqual(since);
    holds = [];
    expect(elsewhere.seen()).toEqual([]);
    expect(elsewhere.all().map(alarmId)).toEqual(['STORE_BEHIND.cluster', 'AUDIT_FULL.host.host1']);
  });

  it('go when the condition has been over for 5 s, and that is told once', async () => {
    holds = [BEHIND];
    const reconciler = newReconciler();
    await look(reconciler);
    holds = [];
    await look(reconciler, 4);
    expect(recorded()).toEqual(['STORE_BEHIND.cluster']);
    // It came back meanwhile: the same alarm.
    holds = [BEHIND];
    await look(reconciler, 2);
    holds = [];
    await look(reconciler, 8);
    expect(recorded()).toEqual([]);
    expect(told()).toEqual(['ALARM_RAISED cluster', 'ALARM_CLEARED cluster']);
  });

  it('stay through a change of leaders: nothing is told anew, and one that does not see it yet does not clear it at once', async () => {
    holds = [BEHIND];
    await look(newReconciler(), 2);
    holds = [];
    const next = newReconciler();
    await look(next, 3);
    holds = [BEHIND];
    await look(next, 10);
    expect(told()).toEqual(['ALARM_RAISED cluster']);
  });

  it('are told again when they become critical, and not for other words', async () => {
    const reconciler = newReconciler();
    holds = [FULL];
    await look(reconciler);
    holds = [{ ...FULL, message: '76 %' }];
    await look(reconciler, 3);
    expect(rig.view.tables.alarm.get('AUDIT_FULL.host.host1')?.record.message).toBe('75 %');
    await look(reconciler, 61);
    expect(rig.view.tables.alarm.get('AUDIT_FULL.host.host1')?.record.message).toBe('76 %');
    expect(told()).toEqual(['ALARM_RAISED host']);
    holds = [{ ...FULL, severity: 'critical', message: '90 %' }];
    await look(reconciler, 2);
    expect(told()).toEqual(['ALARM_RAISED host', 'ALARM_RAISED host']);
  });

  it('name no alarm that the plan was not given', () => {
    const alarm = (code: string): Alarm => ({
      code,
      severity: AlarmSeverity.WARNING,
      subject: 'cluster',
      message: 'm',
      hint: '',
      raiseTime: new Date(0),
    });
    const former = new Map([['A.cluster', alarm('A')]]);
    expect(planAlarms([alarm('A')], former, () => true)).toEqual({ put: [], cleared: [] });
    expect(planAlarms([alarm('B')], former, () => true)).toMatchObject({
      put: [{ id: 'B.cluster' }],
      cleared: ['A.cluster'],
    });
  });
});
