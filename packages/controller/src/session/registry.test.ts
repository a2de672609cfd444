// SPDX-License-Identifier: Apache-2.0
import { settle, VirtualClock } from '@busbar/core/clock/virtual';
import { silentLogger } from '@busbar/core/log';
import { seededRandom } from '@busbar/core/random';
import {
  AttachKind,
  type AttachOrder,
  AttachRequest,
  DesiredState,
  SessionRequest,
  type SessionResponse,
} from '@busbar/proto/gen/busbar/agent/v1/agent';
import { beforeEach, describe, expect, it } from 'vitest';
import { localGranting } from '../lease/granting.ts';
import { Pipe } from './pipe.fixture.ts';
import { SessionRegistry } from './registry.ts';

let clock: VirtualClock;
let registry: SessionRegistry;

beforeEach(() => {
  clock = new VirtualClock();
  const random = seededRandom(1);
  const controllers = ['host1', 'host2', 'host3'];
  // Started long ago: heartbeats are answered at once.
  const granting = localGranting({ clock, leaseTtlMs: 2_500, startedAtMs: Number.NEGATIVE_INFINITY });
  registry = new SessionRegistry({ controller: 'host1', controllers, granting, clock, random, logger: silentLogger });
});

class FakeAgent {
  readonly up = new Pipe<SessionRequest>();
  readonly power = new AbortController();
  readonly received: SessionResponse[] = [];
  readonly ended: Promise<unknown>;

  constructor(
    host: string,
    options: { says?: string; instance?: string; boot?: string; address?: string; read?: boolean } = {},
  ) {
    const instance = options.instance ?? 'i1';
    this.up.send(
      SessionRequest.fromPartial({
        message: {
          $case: 'hello',
          value: { host: options.says ?? host, bootId: options.boot ?? 'b', agentInstanceId: instance },
        },
      }),
    );
    const down = registry.session(host, options.address ?? '10.0.0.2', this.up, this.power.signal);
    this.ended = options.read === false ? Promise.resolve(down) : this.#read(down);
    this.ended.catch(() => {});
  }

  async #read(down: AsyncIterable<SessionResponse>): Promise<string> {
    for await (const message of down) this.received.push(message);
    return 'ended';
  }

  beat(number: bigint): void {
    this.up.send(SessionRequest.fromPartial({ message: { $case: 'heartbeat', value: { number } } }));
  }
  report(sequence: bigint, message = ''): void {
    this.up.send(SessionRequest.fromPartial({ message: { $case: 'report', value: { sequence, message } } }));
  }
  cases(): (string | undefined)[] {
    return this.received.map(({ message }) => message?.$case);
  }
  orders(): AttachOrder[] {
    return this.received.flatMap(({ message }) => (message?.$case === 'attach' ? [message.value] : []));
  }
}

const desired = (generation: bigint) => DesiredState.fromPartial({ position: { term: 1n, generation }, bootId: 'b' });

describe('a session', () => {
  it('is refused when the certificate is of another host, or does not begin with hello', async () => {
    const liar = new FakeAgent('host2', { says: 'host3' });
    await expect(liar.ended).rejects.toMatchObject({ kind: 'forbidden', reason: 'SESSION_HOST_MISMATCH' });
    expect(registry.observed('host3')).toBeNull();
    const up = new Pipe<SessionRequest>();
    up.send(SessionRequest.fromPartial({ message: { $case: 'heartbeat', value: { number: 1n } } }));
    const session = registry.session('host2', '10.0.0.2', up, new AbortController().signal);
    await expect(session[Symbol.asyncIterator]().next()).rejects.toMatchObject({ reason: 'SESSION_HOST_MISMATCH' });
    const silent = new Pipe<SessionRequest>();
    silent.end();
    const ended = registry.session('host2', '10.0.0.2', silent, new AbortController().signal);
    await expect(ended[Symbol.asyncIterator]().next()).rejects.toMatchObject({ reason: 'SESSION_HOST_MISMATCH' });
    expect(registry.hosts()).toEqual([]);
  });

  it('begins with the welcome; acknowledgements overtake everything and are coalesced', async () => {
    const agent = new FakeAgent('host2', { read: false });
    const down = ((await agent.ended) as AsyncIterable<SessionResponse>)[Symbol.asyncIterator]();
    const next = async () => (await down.next()).value?.message;
    expect((await next())?.value).toMatchObject({
      controllers: ['host1', 'host2', 'host3'],
      heartbeatIntervalMs: 250,
      leaseTtlMs: 2_500,
    });
    // A reader that is slow: what piles up is the newest of each.
    registry.publish('host2', desired(1n));
    registry.publish('host2', desired(2n));
    for (let n = 1n; n <= 500n; n++) agent.beat(n);
    await settle();
    expect(await next()).toEqual({ $case: 'heartbeatAck', value: { number: 500n } });
    expect(await next()).toEqual({ $case: 'desired', value: desired(2n) });
    agent.beat(501n);
    expect(await next()).toEqual({ $case: 'heartbeatAck', value: { number: 501n } });
  });

  it('ignores an older report, keeps none of a former agent, and tells listeners', async () => {
    let rings = 0;
    using _ = registry.onChange(() => rings++);
    const agent = new FakeAgent('host2');
    agent.report(2n, 'two');
    agent.report(1n, 'one');
    await settle();
    expect(registry.observed('host2')?.report?.message).toBe('two');
    const before = rings;
    for (let n = 1n; n < 50n; n++) agent.beat(n);
    await settle();
    expect(rings).toBe(before);
    // The same agent reconnects: what it said still counts, and so does its counting.
    const again = new FakeAgent('host2');
    await settle();
    again.report(1n, 'late');
    await settle();
    expect(registry.observed('host2')?.report?.message).toBe('two');
    // A new agent begins anew.
    const fresh = new FakeAgent('host2', { instance: 'i2' });
    await settle();
    expect(registry.observed('host2')?.report).toBeNull();
    fresh.report(1n, 'new');
    await settle();
    expect(registry.observed('host2')?.report?.message).toBe('new');
  });

  it('of a newer connection replaces the old, which says nothing any more', async () => {
    const old = new FakeAgent('host2');
    await settle();
    const newer = new FakeAgent('host2');
    await expect(old.ended).resolves.toBe('ended');
    expect(old.up.released).toBe(true);
    expect(registry.observed('host2')?.connected).toBe(true);
    old.report(9n, 'ghost');
    newer.report(1n, 'real');
    await settle();
    expect(registry.observed('host2')?.report?.message).toBe('real');
    newer.power.abort();
    await expect(newer.ended).resolves.toBe('ended');
    expect(registry.observed('host2')?.connected).toBe(false);
    expect(registry.observed('host2')?.report?.message).toBe('real');
  });

  it('of another boot is refused until the lease of the first has ended, and then its reports alone count', async () => {
    const original = new FakeAgent('host2');
    original.report(1n, 'original');
    await settle();
    const clone = new FakeAgent('host2', { boot: 'c', address: '10.0.0.9' });
    await expect(clone.ended).rejects.toMatchObject({ kind: 'unavailable', reason: 'HOST_BOOT_NOT_ADMITTED' });
    await expect(clone.ended).rejects.toThrow(/boot c at 10\.0\.0\.9 .* boot b at 10\.0\.0\.2 was heard/);
    expect(registry.observed('host2')).toMatchObject({ connected: true, boot: { bootId: 'b' } });
    await clock.advance(2_750);
    const next = new FakeAgent('host2', { boot: 'c', instance: 'i1', address: '10.0.0.9' });
    await settle();
    expect(registry.observed('host2')).toMatchObject({ boot: { bootId: 'c' }, report: null, isAlone: false });
    original.report(2n, 'ghost');
    next.report(1n, 'next');
    next.beat(1n);
    await settle();
    expect(registry.observed('host2')?.report?.message).toBe('next');
    expect(next.cases()).toContain('heartbeatAck');
  });

  it('is alone when it holds the lease and no other machine was heard beside it', async () => {
    const agent = new FakeAgent('host2');
    const lease = (leaseRemainingMs: number, sequence: bigint) =>
      agent.up.send(
        SessionRequest.fromPartial({ message: { $case: 'report', value: { sequence, leaseRemainingMs } } }),
      );
    for (const [remaining, sequence] of [
      [0, 1n],
      [2_000, 2n],
    ] as const) {
      lease(remaining, sequence);
      await settle();
      expect(registry.observed('host2')).toMatchObject({ isAlone: remaining > 0, beside: [] });
    }
    for (let n = 1n; n <= 12n; n++) {
      new FakeAgent('host2', { boot: 'c', address: '10.0.0.9' });
      agent.beat(n);
      await clock.advance(300);
    }
    expect(registry.observed('host2')).toMatchObject({ isAlone: false, beside: [{ bootId: 'b' }, { bootId: 'c' }] });
  });

  it('ends quietly when the agent’s stream breaks', async () => {
    const agent = new FakeAgent('host2');
    await settle();
    agent.up.end(new Error('connection reset'));
    await expect(agent.ended).resolves.toBe('ended');
    expect(registry.observed('host2')?.connected).toBe(false);
  });

  it('gets the desired state again after a reconnect, none of another boot, and none once leadership is over', async () => {
    registry.publish('host2', { ...desired(6n), bootId: 'another' });
    const early = new FakeAgent('host2');
    await settle();
    expect(early.cases()).toEqual(['welcome']);
    registry.publish('host2', desired(7n));
    const first = new FakeAgent('host2');
    await settle();
    expect(first.cases()).toEqual(['welcome', 'desired']);
    registry.clearDesired();
    const second = new FakeAgent('host2');
    await settle();
    expect(second.cases()).toEqual(['welcome']);
  });

  it('tells every connected agent how far the store is, the newest mark alone', async () => {
    const [one, two] = [new FakeAgent('host2'), new FakeAgent('host3')];
    await settle();
    registry.markStore(7n);
    registry.markStore(8n);
    await settle();
    const marks = (agent: FakeAgent) =>
      agent.received.flatMap(({ message }) => (message?.$case === 'storeMark' ? [message.value.revision] : []));
    expect([marks(one), marks(two)]).toEqual([[8n], [8n]]);
  });

  it('keeps one report and one inventory of an agent that floods', async () => {
    const agent = new FakeAgent('host2');
    for (let n = 1n; n <= 20_000n; n++) agent.report(n, `r${n}`);
    await settle();
    expect(agent.up.waiting).toBe(0);
    expect(registry.observed('host2')?.report?.message).toBe('r20000');
  });
});

describe('attach', () => {
  const order = {
    vmId: 'v1',
    kind: AttachKind.CONSOLE,
    tailBytes: 0n,
    follow: true,
    caller: 'client/anna',
    role: 'operator',
  };
  const message = (ticket: string, text = '', error = '') =>
    AttachRequest.fromPartial({ ticket, data: Buffer.from(text), error });
  const bytes = (text: string) => new Uint8Array(Buffer.from(text));

  function agentSide(host: string, ticket: string) {
    const up = new Pipe<AttachRequest>();
    up.send(message(ticket));
    const down: string[] = [];
    const ended = (async () => {
      for await (const { data } of registry.attached(host, up)) down.push(Buffer.from(data).toString());
      return 'ended';
    })();
    ended.catch(() => {});
    return { up, down, ended };
  }

  async function open(signal = new AbortController().signal) {
    const agent = new FakeAgent('host2');
    await settle();
    const input = new Pipe<Uint8Array>();
    const opening = registry.attach('host2', order, input, signal);
    opening.catch(() => {});
    await settle();
    const ticket = agent.orders().at(-1)?.ticket ?? '';
    return { agent, input, opening, ticket };
  }

  async function text(output: AsyncIterable<Uint8Array>): Promise<string> {
    let all = '';
    for await (const chunk of output) all += Buffer.from(chunk).toString();
    return all;
  }

  it('joins both ends until the agent ends, with its reason when it cannot go on', async () => {
    const { input, opening, ticket } = await open();
    const side = agentSide('host2', ticket);
    const read = text(await opening);
    input.send(bytes('ls\n'));
    side.up.send(message('', 'a'), message('', 'b'));
    await settle();
    side.up.end();
    await expect(read).resolves.toBe('ab');
    expect(side.down).toEqual(['ls\n']);
    await expect(side.ended).resolves.toBe('ended');
    expect(input.released).toBe(true);

    const failing = await open();
    const broken = agentSide('host2', failing.ticket);
    broken.up.send(message('', 'x'), message('', '', 'the VM has no console'));
    await expect(text(await failing.opening)).rejects.toMatchObject({
      kind: 'precondition',
      message: 'the VM has no console',
    });
    const crowded = await open();
    const full = agentSide('host2', crowded.ticket);
    full.up.send({ ...message('', '', '8 consoles already'), reason: 'PLACES_TAKEN', hint: 'end one' });
    await expect(text(await crowded.opening)).rejects.toMatchObject({
      kind: 'exhausted',
      reason: 'PLACES_TAKEN',
      message: '8 consoles already',
      hint: 'end one',
    });
  });

  it('stays open when there is no more input', async () => {
    const { input, opening, ticket } = await open();
    const side = agentSide('host2', ticket);
    const read = text(await opening);
    input.end();
    await settle();
    side.up.send(message('', 'still here'));
    await settle();
    side.up.end();
    await expect(read).resolves.toBe('still here');
    await expect(side.ended).resolves.toBe('ended');
  });

  it('takes a ticket once, and only from its host', async () => {
    const { opening, ticket } = await open();
    const denied = { kind: 'forbidden', reason: 'ATTACH_TICKET_UNKNOWN' };
    await expect(agentSide('host3', ticket).ended).rejects.toMatchObject(denied);
    await expect(agentSide('host2', 'made up').ended).rejects.toMatchObject(denied);
    agentSide('host2', ticket);
    await opening;
    await expect(agentSide('host2', ticket).ended).rejects.toMatchObject(denied);
  });

  it('ends in time when the agent does not come, and its ticket with it', async () => {
    const { opening, ticket } = await open();
    await clock.advance(5_001);
    await expect(opening).rejects.toMatchObject({ kind: 'unavailable', reason: 'HOST_UNREACHABLE' });
    await expect(agentSide('host2', ticket).ended).rejects.toMatchObject({ reason: 'ATTACH_TICKET_UNKNOWN' });
  });

  it('is refused at once where no agent is connected or it is too far behind', async () => {
    const signal = new AbortController().signal;
    const attach = (host: string) => registry.attach(host, order, new Pipe<Uint8Array>(), signal);
    await expect(attach('host9')).rejects.toMatchObject({ reason: 'HOST_UNREACHABLE' });
    void new FakeAgent('host2', { read: false }).ended.then((down) =>
      (down as AsyncIterable<SessionResponse>)[Symbol.asyncIterator]().next(),
    );
    await settle();
    const opening = Array.from({ length: 80 }, () =>
      attach('host2').catch((error: { reason: string }) => error.reason),
    );
    await settle();
    await clock.advance(6_000);
    expect(new Set(await Promise.all(opening))).toEqual(new Set(['HOST_UNREACHABLE']));
  });

  it.each(['before the agent came', 'while the guest is silent'])(
    'is released on both sides by a caller who hangs up %s',
    async (when) => {
      const hangUp = new AbortController();
      const { input, opening, ticket } = await open(hangUp.signal);
      if (when.startsWith('before')) {
        hangUp.abort();
        await expect(text(await opening)).resolves.toBe('');
        await expect(agentSide('host2', ticket).ended).rejects.toMatchObject({ reason: 'ATTACH_TICKET_UNKNOWN' });
      } else {
        const side = agentSide('host2', ticket);
        const read = text(await opening);
        hangUp.abort();
        await expect(read).resolves.toBe('');
        await expect(side.ended).resolves.toBe('ended');
        expect(input.released).toBe(true);
      }
    },
  );

  it('holds back a guest that is faster than its reader', async () => {
    const { opening, ticket } = await open();
    const side = agentSide('host2', ticket);
    const reader = (await opening)[Symbol.asyncIterator]();
    for (let i = 0; i < 100; i++) side.up.send(message('', `${i};`));
    await settle();
    expect(side.up.waiting).toBeGreaterThan(96);
    expect(Buffer.from((await reader.next()).value as Uint8Array).toString()).toBe('0;');
    await settle();
    expect(side.up.waiting).toBeGreaterThan(95);
    await reader.return?.();
    await expect(side.ended).resolves.toBe('ended');
  });
});
