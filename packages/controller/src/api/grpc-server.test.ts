// SPDX-License-Identifier: Apache-2.0
import { connect, type Settings } from 'node:http2';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { AgentServiceDefinition, AttachKind, SessionRequest } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { NetworkServiceDefinition } from '@busbar/proto/gen/busbar/v1/network';
import { VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import {
  type Channel,
  ChannelCredentials,
  ClientError,
  createChannel,
  createClient,
  Metadata,
  Status,
} from 'nice-grpc';
import { HealthDefinition } from 'nice-grpc-server-health';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Authority, createAuthority, issue, openAuthority } from '../pki/authority.ts';
import { type Identity, identityUri } from '../pki/identity.ts';
import { roleUri } from '../pki/role.ts';
import { Rig } from '../testing/rig.ts';
import { type GrpcServer, grpcServer } from './grpc-server.ts';
import { PEER_KEY, uriNames } from './identity-interceptor.ts';
import { ERROR_TRAILER } from './status.ts';

/** A real TLS server on this machine; behind it the API on virtual time, which a real timer moves on. */
const now = new Date();
let ours: Authority;
let theirs: Authority;
let rig: Rig;
let server: GrpcServer;
let port: number;
let ticking: NodeJS.Timeout;
const channels: Channel[] = [];

async function authority(commonName: string): Promise<Authority> {
  return openAuthority(await createAuthority({ commonName, now, validDays: 2 }));
}

async function certificate(by: Authority, ...identities: Identity[]) {
  const roles = identities.some(({ kind }) => kind === 'client') ? [roleUri('test', 'admin')] : [];
  const uris = [...identities.map(identityUri), ...roles];
  return issue(by, { commonName: 'x', now, validDays: 1, uris, usages: ['clientAuth'] });
}
const client = (name = 'admin', cluster = 'test'): Identity => ({ kind: 'client', cluster, client: name });
const host = (name: string, cluster = 'test'): Identity => ({ kind: 'host', cluster, host: name });

beforeAll(async () => {
  [ours, theirs] = [await authority('ours'), await authority('theirs')];
});

beforeEach(async () => {
  rig = new Rig();
  await rig.start();
  const own = await issue(ours, {
    commonName: 'server',
    now,
    validDays: 1,
    dns: ['localhost'],
    ips: ['127.0.0.1'],
    usages: ['serverAuth'],
  });
  const tls = {
    ca: Buffer.from(ours.certificatePem),
    certificate: Buffer.from(own.certificatePem),
    key: Buffer.from(own.keyPem),
  };
  server = grpcServer({
    cluster: 'test',
    services: rig.services,
    sessions: rig.api.sessions,
    tls,
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
afterAll(() => channels.splice(0));

async function channelFor(by: Authority | null, ...identities: Identity[]): Promise<Channel> {
  const own = by === null ? null : await certificate(by, ...identities);
  const pem = (text: string | undefined) => (text === undefined ? null : Buffer.from(text));
  const credentials = ChannelCredentials.createSsl(
    Buffer.from(ours.certificatePem),
    pem(own?.keyPem),
    pem(own?.certificatePem),
  );
  const channel = createChannel(`localhost:${port}`, credentials, {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.max_send_message_length': -1,
    'grpc.initial_reconnect_backoff_ms': 60_000,
    'grpc.enable_retries': 0,
  });
  channels.push(channel);
  return channel;
}

async function failure(call: Promise<unknown>): Promise<ClientError> {
  const error: unknown = await call.then(
    () => new Error('was answered'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ClientError);
  return error as ClientError;
}
const signal = () => AbortSignal.timeout(4_000);

describe('a client of this cluster', () => {
  it('takes a thousand calls of one connection at a time', async () => {
    const own = await certificate(ours, client());
    const session = connect(`https://localhost:${port}`, {
      ca: ours.certificatePem,
      cert: own.certificatePem,
      key: own.keyPem,
    });
    const settings = await new Promise<Settings>((resolve, reject) => {
      session.once('remoteSettings', resolve);
      session.once('error', reject);
    });
    session.destroy();
    expect(settings.maxConcurrentStreams).toBe(1_000);
  });

  it('calls every service, and errors carry their details', async () => {
    const channel = await channelFor(ours, client());
    for (const { definition } of rig.services) {
      const made = createClient(definition as never, channel) as unknown as Record<
        string,
        (request: object, options: object) => Promise<unknown>
      >;
      const method =
        Object.entries(definition.methods).find(
          ([key, rpc]) => /^(list|getCluster)/.test(key) && !rpc.responseStream,
        )?.[0] ?? '';
      await expect(made[method]?.({}, { signal: signal() }), `${definition.name}/${method}`).resolves.toBeDefined();
    }
    const networks = createClient(NetworkServiceDefinition, channel);
    await networks.createNetwork({ name: 'plant', spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } });
    let trailer = Metadata();
    const refused = await failure(
      networks.createNetwork(
        { name: 'a b', labels: { ['ключ '.repeat(100_000)]: 'x' } },
        {
          onTrailer: (got) => {
            trailer = got;
          },
        },
      ),
    );
    expect(refused.code).toBe(Status.INVALID_ARGUMENT);
    const info = ErrorInfo.decode(trailer.get(ERROR_TRAILER) as Uint8Array);
    expect(info).toMatchObject({ reason: 'INVALID_REQUEST', fields: [{ field: 'name', problem: 'is "a b"' }, {}, {}] });
  });

  it('finds health and reflection', async () => {
    const channel = await channelFor(ours, client());
    expect(await createClient(HealthDefinition, channel).check({ service: '' })).toMatchObject({ status: 1 });
    const raw = (value: Buffer) => value;
    const reflection = createClient(
      {
        serverReflectionInfo: {
          path: '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
          requestStream: true,
          responseStream: true,
          requestSerialize: raw,
          requestDeserialize: raw,
          responseSerialize: raw,
          responseDeserialize: raw,
        },
      } as const,
      channel,
    );
    async function* ask() {
      // ServerReflectionRequest{list_services: ""}: field 7, length 0.
      yield Buffer.from([0x3a, 0]);
    }
    let answer = '';
    for await (const bytes of reflection.serverReflectionInfo(ask(), { signal: signal() })) {
      answer = bytes.toString('latin1');
      break;
    }
    for (const { definition } of rig.services) expect(answer).toContain(definition.fullName);
    expect(answer).not.toContain(AgentServiceDefinition.fullName);
  });

  it('sends no message that is too large', async () => {
    const networks = createClient(NetworkServiceDefinition, await channelFor(ours, client()));
    const error = await failure(networks.createNetwork({ name: 'x'.repeat(5 * 1024 ** 2) }, { signal: signal() }));
    expect(error.code).toBe(Status.RESOURCE_EXHAUSTED);
  });

  it('does not open the agents’ service', async () => {
    const agents = createClient(AgentServiceDefinition, await channelFor(ours, client()));
    async function* hello() {
      yield SessionRequest.fromPartial({ message: { $case: 'hello', value: { host: 'host2' } } });
    }
    const first = async () => {
      for await (const message of agents.session(hello(), { signal: signal() })) return message;
      return null;
    };
    expect((await failure(first())).code).toBe(Status.PERMISSION_DENIED);
    expect(rig.api.sessions.hosts()).toEqual([]);
  });
});

describe('somebody else', () => {
  const list = (channel: Channel, metadata = Metadata()) =>
    createClient(VmServiceDefinition, channel).listVms({}, { signal: signal(), metadata });

  it.each<[string, () => Promise<Channel>]>([
    ['without a certificate', () => channelFor(null)],
    ['with a certificate of another authority', () => channelFor(theirs, client())],
  ])('%s does not get through the handshake', async (_name, channel) => {
    expect((await failure(list(await channel()))).code).toBe(Status.UNAVAILABLE);
  });

  it.each<[string, Identity[]]>([
    ['a client of another cluster', [client('admin', 'other')]],
    ['a host', [host('host2')]],
    ['a controller', [{ kind: 'controller', cluster: 'test', host: 'host1' }]],
  ])('%s is not authenticated, whatever it claims in a header', async (_name, identities) => {
    const channel = await channelFor(ours, ...identities);
    expect((await failure(list(channel))).code).toBe(Status.UNAUTHENTICATED);
    const claim = Metadata({ [PEER_KEY]: Buffer.from(`URI:${identityUri(client())}`) });
    expect((await failure(list(channel, claim))).code).toBe(Status.UNAUTHENTICATED);
  });

  it('a host speaks for itself alone', async () => {
    const agents = createClient(AgentServiceDefinition, await channelFor(ours, host('host2')));
    const begin = (name: string) => async () => {
      async function* hello() {
        yield SessionRequest.fromPartial({ message: { $case: 'hello', value: { host: name } } });
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
      for await (const { message } of agents.session(hello(), { signal: signal() })) return message?.$case;
      return null;
    };
    expect((await failure(begin('host1')())).code).toBe(Status.PERMISSION_DENIED);
    expect(await begin('host2')()).toBe('welcome');
    const other = createClient(AgentServiceDefinition, await channelFor(ours, host('host2', 'other')));
    const foreign = async () => {
      for await (const message of other.session((async function* () {})(), { signal: signal() })) return message;
      return null;
    };
    expect((await failure(foreign())).code).toBe(Status.PERMISSION_DENIED);
  });

  it('names in a certificate are read exactly', () => {
    expect(uriNames('URI:spiffe://a/client/b, DNS:x, URI:spiffe://c/host/d')).toEqual([
      'spiffe://a/client/b',
      'spiffe://c/host/d',
    ]);
    expect(uriNames('DNS:"x, URI:spiffe://a/client/b"')).toEqual([]);
    expect(uriNames('URI:"spiffe://a/client/b"')).toEqual([]);
    expect(uriNames('')).toEqual([]);
  });
});

describe('an attach stream over the wire', () => {
  it('carries a log, which has no input, to its end', async () => {
    const agents = createClient(AgentServiceDefinition, await channelFor(ours, host('host2')));
    const stop = new AbortController();
    async function* hello() {
      yield SessionRequest.fromPartial({ message: { $case: 'hello', value: { host: 'host2' } } });
      await new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve()));
    }
    const serving = (async () => {
      for await (const { message } of agents.session(hello(), { signal: stop.signal })) {
        if (message?.$case !== 'attach') continue;
        const { ticket } = message.value;
        async function* up() {
          yield { ticket, data: Buffer.alloc(0), error: '' };
          for (let i = 0; i < 20; i++) {
            await new Promise((resolve) => setTimeout(resolve, 5));
            yield { ticket: '', data: Buffer.from(`${i};`), error: '' };
          }
        }
        for await (const _ of agents.attach(up())) void _;
      }
    })().catch(() => {});
    await expect.poll(() => rig.api.sessions.observed('host2')?.connected).toBe(true);
    const order = { vmId: 'v', kind: AttachKind.LOG, tailBytes: 0n, follow: true };
    let text = '';
    for await (const chunk of await rig.api.sessions.attach('host2', order, (async function* () {})(), stop.signal))
      text += Buffer.from(chunk).toString();
    expect(text).toBe(Array.from({ length: 20 }, (_, i) => `${i};`).join(''));
    stop.abort();
    await serving;
  });
});
