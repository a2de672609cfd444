// SPDX-License-Identifier: Apache-2.0
import type { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import { type Noted, QUEUE_MAX } from './trail.ts';

/** Goal: whoever makes refusals by the thousand fills neither the store nor the process, and is still told of. */
let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const refusal = (caller: string | null, more: Partial<Noted['details']> = {}, address = '10.77.2.9'): Noted => ({
  method: 'busbar.v1.VmService/DeleteVm',
  caller: caller === null ? null : testCaller('viewer', caller),
  arrival: { transport: 'https', address, connection: '' },
  id: null,
  details: { target: undefined, requestId: '', validateOnly: false, reason: 'ROLE_TOO_LOW', message: 'no', ...more },
});
const kept = (): readonly AuditRecord[] => rig.view.tables.audit.oldestFirst().map(({ record }) => record);
const of = (caller: string) => kept().filter((record) => record.caller === caller);

describe('the trail', () => {
  it('records a few of each caller one by one, counts the rest, and tells the count once a minute', async () => {
    for (let i = 0; i < 5_000; i++) rig.trail.note(refusal('client/mallory'));
    rig.trail.note(refusal('client/anna'));
    rig.trail.note(refusal(null));
    await rig.clock.advance(30_000);
    expect([of('client/mallory').length, of('client/anna').length, of('nobody').length]).toEqual([20, 1, 1]);
    await rig.clock.advance(60_000);
    expect(of('client/mallory').at(-1)).toMatchObject({
      method: '',
      reason: 'NOT_RECORDED_SINGLY',
      furtherCalls: 4_980,
      message: '4980 further calls of client/mallory that changed nothing',
      role: 'viewer',
    });
    await rig.clock.advance(600_000);
    expect(of('client/mallory')).toHaveLength(21);
  });

  it('a caller that never stops costs two records a minute', async () => {
    for (let second = 0; second < 3_600; second++) {
      for (let i = 0; i < 5; i++) rig.trail.note(refusal('client/mallory'));
      await rig.clock.advance(1_000);
    }
    await rig.clock.advance(61_000);
    const records = of('client/mallory');
    expect(records.length).toBeLessThanOrEqual(20 + 2 * 62);
    const single = records.filter(({ furtherCalls }) => furtherCalls === 0).length;
    expect(single + records.reduce((sum, { furtherCalls }) => sum + furtherCalls, 0)).toBe(5 * 3_600);
  });

  it('refusals do not use up what tells of opened consoles', async () => {
    for (let i = 0; i < 100; i++) rig.trail.note(refusal('client/anna'));
    rig.trail.note(refusal('client/anna', { reason: '', message: '' }));
    await rig.clock.advance(1_000);
    expect(of('client/anna').at(-1)).toMatchObject({ reason: '', changed: false });
  });

  it('thousands of callers share an allowance, and memory stays bounded', async () => {
    for (let i = 0; i < 3_000; i++) rig.trail.note(refusal(`client/c${i}`));
    await rig.clock.advance(600_000);
    const total = kept().reduce((sum, { furtherCalls }) => sum + (furtherCalls || 1), 0);
    expect(total).toBe(3_000);
    expect(of('others').at(-1)?.furtherCalls).toBeGreaterThan(1_900);
  });

  it('tells strangers apart by their address, a bounded number of them', async () => {
    for (let i = 0; i < 500; i++) rig.trail.note(refusal(null));
    rig.trail.note(refusal(null, {}, '10.77.2.10'));
    for (let i = 0; i < 1_000; i++) rig.trail.note(refusal(null, {}, `fe80::${i.toString(16)}`));
    await rig.clock.advance(600_000);
    const [first, other] = ['10.77.2.9', '10.77.2.10'].map((address) =>
      kept().filter((each) => each.address === address),
    );
    expect([first?.length, other?.length]).toEqual([21, 1]);
    expect(first?.at(-1)).toMatchObject({ furtherCalls: 480, transport: 'https' });
    expect(kept().at(-1)).toMatchObject({ caller: 'nobody', address: '', transport: '' });
    expect(kept().reduce((sum, { furtherCalls }) => sum + (furtherCalls || 1), 0)).toBe(1_501);
  });

  it('keeps so many in memory and no more, while nobody takes them', async () => {
    rig.truth.setQuorum(false);
    for (let i = 0; i < 4 * QUEUE_MAX; i++) rig.trail.note(refusal(`client/c${i}`));
    await rig.clock.advance(10_000);
    rig.truth.setQuorum(true);
    await rig.clock.advance(40_000);
    expect(kept()).toHaveLength(QUEUE_MAX);
    await rig.clock.advance(600_000);
    expect(kept().reduce((sum, { furtherCalls }) => sum + (furtherCalls || 1), 0)).toBe(4 * QUEUE_MAX);
  });

  it('waits for a store that is away, without holding up anybody, and loses no count', async () => {
    rig.truth.setQuorum(false);
    for (let i = 0; i < 1_000; i++) rig.trail.note(refusal(`client/c${i % 40}`));
    await rig.clock.advance(180_000);
    rig.truth.setQuorum(true);
    await rig.clock.advance(300_000);
    expect(kept().reduce((sum, { furtherCalls }) => sum + (furtherCalls || 1), 0)).toBe(1_000);
  });
});
