// SPDX-License-Identifier: Apache-2.0
import { AttachKind, type AttachOrder } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { beforeEach, describe, expect, it } from 'vitest';
import { desiredVm, Rig, vmId } from '../agent.fixture.ts';
import type { AttachSide } from '../session/scripted-cluster.fixture.ts';

let rig: Rig;

beforeEach(async () => {
  rig = new Rig();
  rig.startAgent();
  await rig.clock.advance(1000);
  rig.desire([desiredVm(1, 1n)]);
  await rig.until(() => rig.machine.domains[0]?.state === 'running', 10_000, 'VM 1 running');
});

async function order(order: Partial<AttachOrder> = {}): Promise<AttachSide> {
  const value = {
    ...{ ticket: 't', vmId: vmId(1), kind: AttachKind.CONSOLE, tailBytes: 0n, follow: false },
    ...{ caller: 'client/anna', role: 'operator', ...order },
  };
  rig.cluster.leader.send({ message: { $case: 'attach', value } });
  await rig.clock.advance(100);
  const side = rig.cluster.attached.at(-1);
  if (side === undefined) throw new Error('no stream was opened');
  return side;
}

const text = (side: AttachSide) => Buffer.concat(side.received.map((request) => request.data)).toString();
const errors = (side: AttachSide) => side.received.map((request) => request.error).filter((error) => error !== '');

describe('attach', () => {
  it('carries a console both ways, to the controller that asked', async () => {
    const side = await order();
    expect(side.address).toBe('h1');
    expect(side.received[0]).toMatchObject({ ticket: 't' });
    side.input.push({ data: Buffer.from('hello') });
    await rig.clock.advance(100);
    expect(text(side)).toBe('hello');
    expect(side.received.slice(1).every((request) => request.ticket === '')).toBe(true);
  });

  it('lets go when the user hangs up', async () => {
    const side = await order();
    side.input.end();
    await rig.clock.advance(100);
    expect(side.ended).toBe(true);
  });

  it('reads the tail of the log, whole and in small pieces', async () => {
    rig.machine.serial(vmId(1))?.print(Buffer.alloc(100_000, 'x'));
    const side = await order({ kind: AttachKind.LOG, tailBytes: 50_000n });
    expect(text(side)).toBe('x'.repeat(50_000));
    expect(side.received.every((request) => request.data.length <= 16 * 1024)).toBe(true);
    expect(side.ended).toBe(true);
  });

  it('says why there is nothing to stream', async () => {
    expect(errors(await order({ vmId: vmId(2) }))).toEqual([expect.stringMatching(/no domain of VM/)]);
    expect(errors(await order({ kind: AttachKind.UNRECOGNIZED }))).toEqual([expect.stringMatching(/older/)]);
  });

  const log = (caller: string, role = 'viewer') => order({ kind: AttachKind.LOG, follow: true, caller, role });

  it('has places for consoles that no logs take, however many viewers follow them', async () => {
    const sides: AttachSide[] = [];
    for (let n = 0; n < 40; n++) sides.push(await log(`client/viewer${n % 5}`));
    expect(sides.flatMap(errors)).toHaveLength(16);
    const side = await order();
    side.input.push({ data: Buffer.from('hello') });
    await rig.clock.advance(100);
    expect([errors(side), text(side)]).toEqual([[], 'hello']);
    expect(errors(await log('client/olga', 'operator'))).toEqual([]);
  });

  it('limits the streams of a caller and says so with a reason, and frees the place of one that ended', async () => {
    const sides: AttachSide[] = [];
    for (let n = 0; n < 8; n++) sides.push(await order());
    expect(sides.flatMap(errors)).toEqual([]);
    const refused = await order();
    expect(refused.received.at(-1)).toMatchObject({
      error: '"client/anna" has 8 consoles at this host, the most that one caller may have',
      reason: 'PLACES_TAKEN',
      hint: 'end one of them first',
    });
    expect(errors(await order({ caller: 'client/berta' }))).toEqual([]);
    sides[0]?.input.end();
    await rig.clock.advance(6000);
    expect(errors(await order())).toEqual([]);
  });

  it('takes orders of a controller that does not say who asks', async () => {
    expect(errors(await order({ caller: '', role: '' }))).toEqual([]);
    expect(errors(await order({ caller: '', role: '__proto__' }))).toEqual([]);
  });

  it('ends its streams when the agent stops', async () => {
    const side = await order();
    await rig.agent.stop();
    expect(side.ended).toBe(true);
  });
});
