// SPDX-License-Identifier: Apache-2.0
import { settle, VirtualClock } from '@busbar/core/clock/virtual';
import { silentLogger } from '@busbar/core/log';
import { seededRandom } from '@busbar/core/random';
import { type AttachRequest, SessionRequest } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { beforeEach, describe, expect, it } from 'vitest';
import { localGranting } from '../lease/granting.ts';
import { FIRST_MESSAGE_DEADLINE_MS } from './first-message.ts';
import { SessionRegistry } from './registry.ts';

// What the registry does not take from an agent: silence, floods, novels, and news of yesterday.

let clock: VirtualClock;
let registry: SessionRegistry;
let rings: number;

beforeEach(() => {
  clock = new VirtualClock();
  registry = new SessionRegistry({
    controller: 'host1',
    controllers: ['host1'],
    granting: localGranting({ clock, leaseTtlMs: 2_500 }),
    clock,
    random: seededRandom(1),
    logger: silentLogger,
  });
  rings = 0;
  registry.onChange(() => rings++);
});

type Message = Parameters<typeof SessionRequest.fromPartial>[0]['message'];

/** A stream that goes on however often its reader lets go of it. */
function connect(hello: object = {}) {
  const queue: SessionRequest[] = [];
  let wake = () => {};
  const send = (message: Message) => {
    queue.push(SessionRequest.fromPartial({ message }));
    wake();
  };
  send({ $case: 'hello', value: { host: 'host2', bootId: 'b', agentInstanceId: 'i1', ...hello } });
  const up: AsyncIterable<SessionRequest> = {
    [Symbol.asyncIterator]: () => ({
      next: async () => {
        while (queue.length === 0) await new Promise<void>((resolve) => (wake = resolve));
        return { value: queue.shift() as SessionRequest, done: false };
      },
    }),
  };
  const power = new AbortController();
  const ended = (async () => {
    for await (const _ of registry.session('host2', '10.0.0.2', up, power.signal));
    return 'ended';
  })();
  ended.catch(() => {});
  return {
    ended,
    power,
    report: (sequence: bigint, more: object = {}) => send({ $case: 'report', value: { sequence, ...more } }),
    inventory: (value: object = {}) => send({ $case: 'inventory', value }),
  };
}

const silence = (): AsyncIterable<never> => ({
  [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }),
});

describe('a stream', () => {
  it('that says nothing is given up', async () => {
    const streams = [
      registry.session('host2', '10.0.0.2', silence(), new AbortController().signal),
      registry.attached('host2', silence() as AsyncIterable<AttachRequest>),
    ];
    const ends = streams.map(async (stream) => {
      for await (const _ of stream as AsyncIterable<unknown>);
    });
    for (const end of ends) end.catch(() => {});
    await clock.advance(FIRST_MESSAGE_DEADLINE_MS);
    for (const end of ends) await expect(end).rejects.toMatchObject({ kind: 'timeout', reason: 'DEADLINE_EXCEEDED' });
    expect(registry.hosts()).toEqual([]);
  });

  it('that breaks before its answers are read is no unhandled rejection', async () => {
    const broken: AsyncIterable<SessionRequest> = (async function* () {
      yield SessionRequest.fromPartial({ message: { $case: 'hello', value: { host: 'host2' } } });
      throw new Error('connection reset');
    })();
    const down = registry.session('host2', '10.0.0.2', broken, new AbortController().signal)[Symbol.asyncIterator]();
    expect((await down.next()).value?.message?.$case).toBe('welcome');
    // vitest fails the run for a rejection that nobody handles by now.
    await settle();
    await clock.advance(1_000);
    expect((await down.next()).done).toBe(true);
  });

  it('that was superseded changes nothing any more', async () => {
    const old = connect();
    await settle();
    const newer = connect();
    await clock.advance(1_000);
    newer.report(1n, { message: 'real' });
    await clock.advance(1_000);
    const before = rings;
    old.report(9n, { message: 'ghost' });
    old.inventory({ memoryBytes: 1n });
    await clock.advance(1_000);
    expect(rings).toBe(before);
    expect(registry.observed('host2')).toMatchObject({ report: { message: 'real' }, inventory: null, connected: true });
  });
});

describe('an agent', () => {
  const long = 'x'.repeat(70_000);
  it.each<[string, object, (agent: ReturnType<typeof connect>) => void]>([
    ['a boot id like a novel', { bootId: long }, () => {}],
    ['a million CPUs', {}, (agent) => agent.inventory({ isolatedCpus: Array.from({ length: 300_000 }, (_, i) => i) })],
    ['an endless name', {}, (agent) => agent.inventory({ bridges: [{ name: long }] })],
    [
      'many long names',
      {},
      (agent) => agent.inventory({ bridges: Array.from({ length: 100 }, () => ({ name: 'x'.repeat(16_000) })) }),
    ],
    ['an endless reason', {}, (agent) => agent.report(1n, { domains: [{ vmId: 'v', message: long }] })],
    [
      'more domains than a host can run',
      {},
      (agent) => agent.report(1n, { domains: Array.from({ length: 9_000 }, () => ({ vmId: 'v' })) }),
    ],
  ])('with %s is sent away, with the reason', async (_what, hello, says) => {
    const agent = connect(hello);
    await settle();
    says(agent);
    await expect(agent.ended).rejects.toMatchObject({ kind: 'invalid', reason: 'SESSION_MESSAGE_TOO_LARGE' });
    expect(registry.observed('host2')?.report ?? null).toBeNull();
    expect(registry.observed('host2')?.inventory ?? null).toBeNull();
  });

  it('of a very large host is heard', async () => {
    const agent = connect();
    const pciDevices = Array.from({ length: 4_000 }, (_, i) => ({
      address: `0000:${(i >> 8).toString(16)}:00.0`,
      vendorProduct: '8086:154c',
      classCode: '0x020000',
      driver: 'iavf',
      numaNode: 1,
      iommuGroup: i,
    }));
    const isolatedCpus = Array.from({ length: 2_048 }, (_, i) => i);
    agent.inventory({ pciDevices, isolatedCpus });
    agent.report(1n, { domains: Array.from({ length: 1_000 }, () => ({ vmId: 'v', message: 'y'.repeat(1_000) })) });
    await clock.advance(1_000);
    expect(registry.observed('host2')?.inventory?.pciDevices.length).toBe(4_000);
    expect(registry.observed('host2')?.report?.domains.length).toBe(1_000);
  });

  it('that reports all the time rings ten times a second, and for the last word', async () => {
    const agent = connect();
    await clock.advance(1_000);
    rings = 0;
    for (let n = 1n; n <= 1_000n; n++) {
      agent.report(n);
      await clock.advance(1);
    }
    expect(rings).toBeLessThanOrEqual(11);
    expect(rings).toBeGreaterThanOrEqual(10);
    agent.report(1_001n);
    await settle();
    const before = rings;
    await clock.advance(100);
    expect(rings).toBe(before + 1);
    await clock.advance(10_000);
    expect(rings).toBe(before + 1);
  });

  it('that crashes and comes back is blind since the first time, until it has reported', async () => {
    const blindSince = () => registry.observed('host2')?.blindSinceMs;
    let agent = connect();
    agent.inventory();
    agent.report(1n);
    await settle();
    expect(blindSince()).toBeNull();
    await clock.advance(5_000);
    const first = clock.nowMs();
    for (let life = 2; life < 6; life++) {
      agent.power.abort();
      agent = connect({ agentInstanceId: `i${life}` });
      await clock.advance(5_000);
      expect(blindSince()).toBe(first);
    }
    agent.report(1n);
    await settle();
    expect(blindSince()).toBeNull();
    expect(registry.observed('host2')?.reportedMs).toBe(clock.nowMs());
    // The same agent on another connection: what it said still counts.
    const reportedMs = clock.nowMs();
    await clock.advance(1_000);
    connect({ agentInstanceId: 'i5' });
    await settle();
    expect(registry.observed('host2')).toMatchObject({ blindSinceMs: null, reportedMs });
  });
});
