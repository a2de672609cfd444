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
  const value = { ticket: 't', vmId: vmId(1), kind: AttachKind.CONSOLE, tailBytes: 0n, follow: false, ...order };
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

  it('limits the number of streams and says so, and frees the place of one that ended', async () => {
    const sides: AttachSide[] = [];
    for (let n = 0; n < 16; n++) sides.push(await order());
    expect(sides.flatMap(errors)).toEqual([]);
    expect(errors(await order())).toEqual([expect.stringMatching(/16 streams/)]);
    sides[0]?.input.end();
    await rig.clock.advance(6000);
    expect(errors(await order())).toEqual([]);
  });

  it('ends its streams when the agent stops', async () => {
    const side = await order();
    await rig.agent.stop();
    expect(side.ended).toBe(true);
  });
});
