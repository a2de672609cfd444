// SPDX-License-Identifier: Apache-2.0
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import { type Authority, createAuthority, issue, openAuthority } from '@busbar/pki/authority';
import { identityUri } from '@busbar/pki/identity';
import { fixedTls } from '@busbar/pki/tls/source';
import {
  AgentServiceDefinition,
  AttachKind,
  AttachRequest,
  SessionRequest,
  type SessionResponse,
} from '@busbar/proto/gen/busbar/agent/v1/agent';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import fc from 'fast-check';
import {
  type Channel,
  ChannelCredentials,
  ClientError,
  createChannel,
  createClient,
  type Metadata,
  Status,
} from 'nice-grpc';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type GrpcServer, grpcServer } from '../api/grpc-server.ts';
import { ERROR_TRAILER } from '../api/status.ts';
import { Rig } from '../testing/rig.ts';

/**
 * Over real TLS, with a good certificate of host "thief": bytes that are no messages, messages that are too large, and the
 * claim to be host2. Host2's own agent is connected all the time and must not notice.
 */
const now = new Date();
let authority: Authority;
let rig: Rig;
let server: GrpcServer;
let port: number;
let ticking: NodeJS.Timeout;
const channels: Channel[] = [];

beforeAll(async () => {
  authority = await openAuthority(await createAuthority({ commonName: 'test', now, validDays: 2 }));
});
beforeEach(async () => {
  rig = new Rig(1, now);
  await rig.start();
  const own = await issue(authority, {
    commonName: 's',
    now,
    validDays: 1,
    dns: ['localhost'],
    usages: ['serverAuth'],
  });
  const tls = { ca: pem(authority.certificatePem), certificate: pem(own.certificatePem), key: pem(own.keyPem) };
  server = grpcServer({
    cluster: 'test',
    services: [],
    sessions: rig.api.sessions,
    trail: rig.trail,
    admission: rig.admission,
    tls: fixedTls(tls),
    clock: systemClock,
    logger: silentLogger,
  });
  port = await server.listen('127.0.0.1:0');
  ticking = setInterval(() => void rig.clock.advance(5), 1);
});
afterEach(() => {
  clearInterval(ticking);
  for (const channel of channels.splice(0)) channel.close();
  server.close();
  rig.stop();
});
afterAll(() => {
  for (const channel of channels.splice(0)) channel.close();
});

const pem = (text: string) => Buffer.from(text);
const signal = () => AbortSignal.timeout(20_000);

async function channelOf(host: string): Promise<Channel> {
  const uris = [identityUri({ kind: 'host', cluster: 'test', host })];
  const own = await issue(authority, { commonName: host, now, validDays: 1, uris, usages: ['clientAuth'] });
  const credentials = ChannelCredentials.createSsl(
    pem(authority.certificatePem),
    pem(own.keyPem),
    pem(own.certificatePem),
  );
  const channel = createChannel(`localhost:${port}`, credentials, {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.max_send_message_length': -1,
  });
  channels.push(channel);
  return channel;
}

/** The agent service for a client that does not keep to messages. */
const raw = (value: Buffer) => value;
const RAW = {
  session: {
    path: '/busbar.agent.v1.AgentService/Session',
    requestStream: true,
    responseStream: true,
    requestSerialize: raw,
    requestDeserialize: raw,
    responseSerialize: raw,
    responseDeserialize: raw,
  },
  attach: {
    path: '/busbar.agent.v1.AgentService/Attach',
    requestStream: true,
    responseStream: true,
    requestSerialize: raw,
    requestDeserialize: raw,
    responseSerialize: raw,
    responseDeserialize: raw,
  },
} as const;

const encode = (message: Parameters<typeof SessionRequest.fromPartial>[0]['message']) =>
  Buffer.from(SessionRequest.encode(SessionRequest.fromPartial({ message })).finish());
const hello = (host: string) => encode({ $case: 'hello', value: { host, bootId: 'b', agentInstanceId: host } });

/** How a stream of raw messages ended: status and reason; ok when the server took them all and was left in peace. */
async function ended(channel: Channel, method: 'session' | 'attach', messages: readonly Buffer[]) {
  const abort = new AbortController();
  let trailer: Metadata | null = null;
  async function* up() {
    yield* messages;
    // An agent stays connected; a server that is content says nothing about what it took.
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 60);
      abort.signal.addEventListener('abort', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
  const client = createClient(RAW, channel);
  try {
    const onTrailer = (got: Metadata) => {
      trailer = got;
    };
    for await (const _ of client[method](up(), { signal: signal(), onTrailer }));
    return { code: Status.OK, reason: '', details: '' };
  } catch (error) {
    if (!(error instanceof ClientError)) throw error;
    const info = (trailer as Metadata | null)?.get(ERROR_TRAILER);
    return {
      code: error.code,
      reason: info === undefined ? '' : ErrorInfo.decode(info as Uint8Array).reason,
      details: error.details,
    };
  } finally {
    abort.abort();
  }
}

/** Host2's agent, alive until stopped: beats, and counts what it hears. */
async function host2() {
  const client = createClient(AgentServiceDefinition, await channelOf('host2'));
  const stop = new AbortController();
  const heard: NonNullable<SessionResponse['message']>[] = [];
  async function* up() {
    yield SessionRequest.fromPartial({
      message: { $case: 'hello', value: { host: 'host2', bootId: 'b', agentInstanceId: 'i' } },
    });
    yield SessionRequest.fromPartial({
      message: { $case: 'report', value: { sequence: 1n, message: 'genuine', hypervisorHealthy: true } },
    });
    for (let number = 1n; !stop.signal.aborted; number++) {
      yield SessionRequest.fromPartial({ message: { $case: 'heartbeat', value: { number } } });
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  let broke: unknown = null;
  const done = (async () => {
    for await (const { message } of client.session(up(), { signal: stop.signal })) if (message) heard.push(message);
  })().catch((error: unknown) => {
    if (!stop.signal.aborted) broke = error;
  });
  const acks = () => heard.filter(({ $case }) => $case === 'heartbeatAck').length;
  await expect.poll(acks).toBeGreaterThan(0);
  return {
    heard,
    /** It was answered all the time, is still answered, and what is known of it is what it said. */
    async unharmed() {
      const before = acks();
      await expect.poll(acks).toBeGreaterThan(before + 1);
      expect(broke).toBeNull();
      expect(rig.api.sessions.observed('host2')).toMatchObject({ connected: true, report: { message: 'genuine' } });
    },
    async end() {
      stop.abort();
      await done;
    },
  };
}

describe('a host with a good certificate of its own', () => {
  it('that says to be another one is refused, in every message that it could begin with', async () => {
    const victim = await host2();
    const thief = await channelOf('thief');
    expect(await ended(thief, 'session', [hello('host2')])).toMatchObject({
      code: Status.PERMISSION_DENIED,
      reason: 'SESSION_HOST_MISMATCH',
      details: expect.stringMatching(/certificate is of host "thief".*began with host "host2"/),
    });
    const report = encode({ $case: 'report', value: { sequence: 99n, message: 'forged' } });
    expect(await ended(thief, 'session', [report])).toMatchObject({ code: Status.PERMISSION_DENIED });
    // Its own session is taken. A second hello, as host2, changes nobody.
    await ended(thief, 'session', [hello('thief'), hello('host2'), report]);
    expect(rig.api.sessions.observed('thief')?.report?.message).toBe('forged');
    expect(rig.api.sessions.hosts()).toEqual(['host2', 'thief']);
    await victim.unharmed();
    await victim.end();
  });

  it('cannot take a stream that is meant for another one, even with its ticket', async () => {
    const victim = await host2();
    const stop = new AbortController();
    const order = {
      vmId: 'v',
      kind: AttachKind.CONSOLE,
      tailBytes: 0n,
      follow: false,
      caller: 'client/anna',
      role: 'operator',
    };
    const opened = rig.api.sessions.attach('host2', order, (async function* () {})(), stop.signal);
    opened.catch(() => {});
    await expect.poll(() => victim.heard.find(({ $case }) => $case === 'attach')).toBeDefined();
    const told = victim.heard.find((message) => message.$case === 'attach');
    const ticket = told?.$case === 'attach' ? told.value.ticket : '';
    const take = Buffer.from(
      AttachRequest.encode(AttachRequest.fromPartial({ ticket, data: Buffer.from('root: ') })).finish(),
    );
    expect(await ended(await channelOf('thief'), 'attach', [take])).toMatchObject({
      code: Status.PERMISSION_DENIED,
      reason: 'ATTACH_TICKET_UNKNOWN',
    });
    stop.abort();
    await victim.unharmed();
    await victim.end();
  });

  it('that sends what is no message ends its own session alone, and is told why', async () => {
    const victim = await host2();
    const thief = await channelOf('thief');
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 64 }),
      // A sound message with some bytes changed.
      fc.tuple(fc.nat(200), fc.uint8Array({ minLength: 1, maxLength: 4 })).map(([at, patch]) => {
        const domains = [{ vmId: 'v', epoch: 1n, message: 'text' }];
        const sound = encode({ $case: 'report', value: { sequence: 5n, domains, message: 'hello' } });
        sound.set(patch.subarray(0, sound.length), Math.min(at, sound.length - patch.length));
        return new Uint8Array(sound);
      }),
    );
    let broken = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(bytes, { minLength: 1, maxLength: 4 }), async (messages) => {
        const end = await ended(thief, 'session', [hello('thief'), ...messages.map((one) => Buffer.from(one))]);
        if (end.code === Status.OK) return;
        broken++;
        expect([Status.INTERNAL, Status.INVALID_ARGUMENT]).toContain(end.code);
        expect(end.details).not.toBe('');
        // Nothing of the inside of the controller.
        expect(end.details).not.toMatch(/\bat .*\.(ts|js):\d|node_modules/);
      }),
      { numRuns: numRuns(60) },
    );
    expect(broken).toBeGreaterThan(5);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 64 }), async (one) => {
        const end = await ended(thief, 'attach', [Buffer.from(one)]);
        expect([Status.PERMISSION_DENIED, Status.INTERNAL, Status.INVALID_ARGUMENT]).toContain(end.code);
      }),
      { numRuns: numRuns(20) },
    );
    await victim.unharmed();
    await victim.end();
    expect(rig.api.sessions.hosts()).toEqual(['host2', 'thief']);
  });

  it('that sends too much is cut off, and none of it is kept', async () => {
    const victim = await host2();
    const thief = await channelOf('thief');
    const large = encode({ $case: 'report', value: { sequence: 5n, message: 'x'.repeat(5 * 1024 ** 2) } });
    expect(await ended(thief, 'session', [hello('thief'), large])).toMatchObject({ code: Status.RESOURCE_EXHAUSTED });
    const novel = encode({ $case: 'report', value: { sequence: 5n, message: 'x'.repeat(2 * 1024 ** 2) } });
    expect(await ended(thief, 'session', [hello('thief'), novel])).toMatchObject({
      code: Status.INVALID_ARGUMENT,
      reason: 'SESSION_MESSAGE_TOO_LARGE',
    });
    expect(rig.api.sessions.observed('thief')?.report).toBeNull();
    await victim.unharmed();
    await victim.end();
  });
});
