// SPDX-License-Identifier: Apache-2.0

import { VirtualClock } from '@busbar/core/clock/virtual';
import type { BusbarError } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import { AlarmSeverity } from '@busbar/proto/gen/busbar/v1/alarm';
import { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isClassified } from '../api/essential.ts';
import { encodeRecord, putRecord } from '../records/kinds.ts';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import { Table } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { flags, network } from './mutations.fixture.ts';
import { AuditRoom } from './room.ts';

/**
 * Goal: whoever fills the audit trail is held back himself. Nobody's record goes before its time, other callers go on, and
 * so does what saves a plant.
 *
 * Method: a room for 1,000 records (800 changes), filled through the store with records that are a day old.
 */
const POLICY = { keepDays: 90, keepRefusedDays: 30, records: 1_000 };
const MALLORY = testCaller('operator', 'client/mallory');
const ANNA = testCaller('operator', 'client/anna');
let rig: Rig;
beforeEach(async () => {
  rig = new Rig(1, undefined, undefined, POLICY);
  await rig.start();
});
afterEach(() => rig.stop());

let number = 0;
async function fill(caller: string, count: number, more: Partial<AuditRecord> = {}): Promise<void> {
  const time = new Date(rig.clock.wallTime().getTime() - 86_400_000);
  for (let left = count; left > 0; left -= 100) {
    const writes = Array.from({ length: Math.min(100, left) }, () => {
      const record = AuditRecord.fromPartial({ id: `filled-${number++}`, caller, changed: true, time, ...more });
      return putRecord('audit', record.id, record);
    });
    await rig.run(rig.view.waitFor((await rig.run(rig.api.store.txn({ compare: [], writes }))).revision));
  }
}
const create = (name: string, caller = MALLORY) => rig.call('NetworkService', 'createNetwork', network(name), caller);
const refusal = { kind: 'exhausted', reason: 'AUDIT_FULL' };

describe('the room for audit records', () => {
  it('is anybody’s up to three quarters; then the one who took it is refused, and told why and what to do', async () => {
    await fill('client/mallory', 599);
    await create('a');
    await expect(create('b')).rejects.toMatchObject({
      ...refusal,
      message:
        '600 of 800 places for audit records of changes are taken, 600 of them by "client/mallory"; none of them may go for 90 days',
      hint: expect.stringContaining('audit.records'),
    });
    await expect(
      rig.call('NetworkService', 'createNetwork', network('b', { validateOnly: true }), MALLORY),
    ).rejects.toMatchObject(refusal);
    await create('b', ANNA);
    expect(rig.view.tables.network.find('b')).toBeDefined();
    // The refusal is on record itself.
    await rig.clock.advance(2_000);
    expect(rig.view.tables.audit.oldestFirst().some(({ record }) => record.reason === 'AUDIT_FULL')).toBe(true);
  });

  it('that many have filled is still anybody’s who takes little of it', async () => {
    for (const name of ['b', 'c', 'd', 'e', 'f']) await fill(`client/${name}`, 160);
    for (const name of ['b', 'f'])
      await expect(create('x', testCaller('operator', `client/${name}`))).rejects.toMatchObject(refusal);
    for (let i = 0; i < 8; i++) await create(`n${i}`, ANNA);
    await expect(create('n8', ANNA)).rejects.toMatchObject(refusal);
    // A machine whose certificate ends is no person who labels networks.
    rig.room.admit('host/host1', 'busbar.v1.CertificateService/RenewCertificate');
  });

  it('is no reason to refuse what saves a plant, though not without end', async () => {
    await fill('client/mallory', 900);
    const cordon = (i: number) =>
      rig.call(
        'HostService',
        'updateHost',
        { host: 'host1', labels: { n: `${i}` }, spec: undefined, updateMask: ['labels'], ...flags },
        MALLORY,
      );
    for (let i = 0; i < 20; i++) await cordon(i);
    await expect(cordon(20)).rejects.toMatchObject({ ...refusal, hint: expect.stringContaining('every ten minutes') });
    await rig.clock.advance(600_000);
    await cordon(21);
    await expect(cordon(22)).rejects.toMatchObject(refusal);
  });

  it('of refusals is filled by counts instead, once a caller has had his share', async () => {
    await fill('client/mallory', 75, { changed: false, reason: 'ROLE_TOO_LOW' });
    const before = rig.view.tables.audit.size;
    for (let minute = 0; minute < 180; minute++) {
      for (let i = 0; i < 5; i++)
        await expect(
          rig.call('NetworkService', 'deleteNetwork', { network: 'x', ...flags }, MALLORY),
        ).rejects.toThrow();
      await rig.clock.advance(60_000);
    }
    await rig.clock.advance(3_700_000);
    const made = rig.view.tables.audit
      .oldestFirst()
      .slice(before)
      .map(({ record }) => record);
    expect(made.length).toBeLessThanOrEqual(4);
    expect(made.reduce((sum, { furtherCalls }) => sum + (furtherCalls || 1), 0)).toBe(900);
    // Others are recorded one by one.
    await expect(rig.call('NetworkService', 'deleteNetwork', { network: 'x', ...flags }, ANNA)).rejects.toThrow();
    await rig.clock.advance(2_000);
    expect(rig.view.tables.audit.oldestFirst().at(-1)?.record).toMatchObject({
      caller: 'client/anna',
      furtherCalls: 0,
    });
  });

  it('raises an alarm at 75 %, and a more urgent one at 90 %, which names the busiest caller', async () => {
    const alarm = () => rig.api.alarms.seen().find(({ code }) => code === 'AUDIT_NEARLY_FULL');
    await fill('client/mallory', 599);
    expect(alarm()).toBeUndefined();
    await fill('client/anna', 1);
    expect(alarm()).toMatchObject({
      severity: AlarmSeverity.WARNING,
      subject: 'audit/changes',
      message:
        '75 % of the places for audit records of changes are taken (600 of 800, 599 of them by "client/mallory")',
    });
    await fill('client/anna', 120);
    expect(alarm()?.severity).toBe(AlarmSeverity.CRITICAL);
  });

  it('knows every call that changes something: it may wait, or it saves a plant', () => {
    for (const { definition, methods } of rig.services)
      for (const [key, rpc] of Object.entries(definition.methods))
        expect([rpc.name, isClassified(`${definition.fullName}/${rpc.name}`)]).toEqual([
          rpc.name,
          methods[key]?.access !== 'read',
        ]);
  });
});

/** A room for 160 changes over a table alone. */
function smallRoom() {
  const clock = new VirtualClock();
  const table = new Table('audit');
  const view = { tables: { audit: table } } as unknown as ClusterView;
  const room = new AuditRoom({ view, policy: { ...POLICY, records: 200 }, clock });
  const madeMs = new Map<string, number>();
  const nowMs = () => clock.wallTime().getTime();
  const admitted = (caller: string): boolean => {
    try {
      room.admit(caller, 'busbar.v1.NetworkService/UpdateNetwork');
    } catch (error) {
      if ((error as BusbarError).reason !== 'AUDIT_FULL') throw error;
      return false;
    }
    const id = `r${madeMs.size}`;
    madeMs.set(id, nowMs());
    const record = AuditRecord.fromPartial({ id, caller, changed: true, time: clock.wallTime() });
    const revision = BigInt(madeMs.size) as Revision;
    table.take(id, {
      key: id,
      value: encodeRecord('audit', record),
      createRevision: revision,
      modRevision: revision,
    });
    return true;
  };
  const cleanUp = (): readonly number[] =>
    room.expired().map(({ key }) => {
      const id = key.split('/').at(-1) ?? '';
      table.delete(id);
      return nowMs() - (madeMs.get(id) ?? 0);
    });
  return { clock, table, admitted, cleanUp };
}

it('whatever several callers do, in whatever order: no record goes before its time, and who does little is let in', async () => {
  const step = fc.record({
    caller: fc.constantFrom('client/mallory', 'client/victor', 'client/anna'),
    calls: fc.integer({ min: 1, max: 100 }),
    pauseDays: fc.integer({ min: 0, max: 40 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 15 }), async (steps) => {
      const { clock, table, admitted, cleanUp } = smallRoom();
      let refusals = 0;
      for (const [number, { caller, calls, pauseDays }] of steps.entries()) {
        for (let i = 0; i < calls; i++) if (!admitted(caller)) refusals++;
        // One is a hundredth of the room.
        if (number === 0 || table.size < 120) expect(admitted('client/quiet')).toBe(true);
        await clock.advance(pauseDays * 86_400_000);
        for (const ageMs of cleanUp()) expect(ageMs).toBeGreaterThan(90 * 86_400_000);
        expect(table.size).toBeLessThanOrEqual(160 + 4);
      }
      // Nobody was held back who left room for others.
      if (steps.reduce((sum, { calls }) => sum + calls, 0) < 100) expect(refusals).toBe(0);
    }),
    { numRuns: 60 },
  );
});
