// SPDX-License-Identifier: Apache-2.0
import { connect, type Settings } from 'node:http2';
import { type Identity, identityUri } from '@busbar/pki/identity';
import { roleUri } from '@busbar/pki/role';
import { AgentServiceDefinition, AttachKind, SessionRequest } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { JoinServiceDefinition } from '@busbar/proto/gen/busbar/v1/join';
import { NetworkServiceDefinition } from '@busbar/proto/gen/busbar/v1/network';
import { VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import { type Channel, createClient, Metadata, Status } from 'nice-grpc';
import { HealthDefinition } from 'nice-grpc-server-health';
import { describe, expect, it } from 'vitest';
import { PEER_KEY } from './base-call.ts';
import { certificate, client, failure, host, patience, reflected, wired } from './grpc-server.fixture.ts';
import { ERROR_TRAILER } from './status.ts';

const wire = wired();

describe('a client of this cluster', () => {
  it('takes a thousand calls of one connection at a time', async () => {
    const own = await certificate(wire.ours, client());
    const session = connect(`https://localhost:${wire.port}`, {
      ca: wire.ours.certificatePem,
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
    const channel = await wire.channelFor(wire.ours, client());
    for (const { definition } of wire.rig.services) {
      if (definition === JoinServiceDefinition) continue;
      const made = createClient(definition as never, channel) as unknown as Record<
        string,
        (request: object, options: object) => Promise<unknown>
      >;
      const method =
        Object.entries(definition.methods).find(
          ([key, rpc]) => /^(list|getCluster)/.test(key) && !rpc.responseStream,
        )?.[0] ?? '';
      await expect(made[method]?.({}, { signal: patience() }), `${definition.name}/${method}`).resolves.toBeDefined();
    }
    const networks = createClient(NetworkServiceDefinition, channel);
    await networks.createNetwork({ name: 'plant', spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } });
    let trailer = Metadata();
    const refused = await failure(
      networks.createNetwork(
        { name: 'a b', labels: { ['ключ '.repeat(5_000)]: 'x' } },
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
    const channel = await wire.channelFor(wire.ours, client());
    expect(await createClient(HealthDefinition, channel).check({ service: '' })).toMatchObject({ status: 1 });
    const answer = await reflected(channel);
    for (const { definition } of wire.rig.services)
      expect(answer.includes(definition.fullName), definition.fullName).toBe(definition !== JoinServiceDefinition);
    expect(answer).not.toContain(AgentServiceDefinition.fullName);
  });

  it('has places by caller for health watches, too, and takes back those of watches that ended', async () => {
    const anna = createClient(HealthDefinition, await wire.channelFor(wire.ours, client('anna')));
    const berta = createClient(HealthDefinition, await wire.channelFor(wire.ours, client('berta')));
    const hangUp = new AbortController();
    const first = (of: typeof anna) =>
      of.watch({ service: '' }, { signal: hangUp.signal })[Symbol.asyncIterator]().next();
    for (let n = 0; n < 8; n++) expect(await first(anna)).toMatchObject({ done: false });
    const refused = await failure(first(anna));
    expect(refused.code).toBe(Status.RESOURCE_EXHAUSTED);
    expect(refused.details).toMatch(/"client\/anna" has 8 streams of health and reflection/);
    expect(await first(berta)).toMatchObject({ done: false });
    hangUp.abort();
    const again = createClient(HealthDefinition, await wire.channelFor(wire.ours, client('anna')));
    const next = () => again.watch({ service: '' }, { signal: patience() })[Symbol.asyncIterator]().next();
    await expect
      .poll(() =>
        next().then(
          () => 'let in',
          () => 'refused',
        ),
      )
      .toBe('let in');
  });

  it('sends no message that is too large', async () => {
    const networks = createClient(NetworkServiceDefinition, await wire.channelFor(wire.ours, client()));
    const error = await failure(networks.createNetwork({ name: 'x'.repeat(5 * 1024 ** 2) }, { signal: patience() }));
    expect(error).toMatchObject({
      code: Status.RESOURCE_EXHAUSTED,
      details: expect.stringMatching(/REQUEST_TOO_LARGE/),
    });
  });

  it('does not open the agents’ service', async () => {
    const agents = createClient(AgentServiceDefinition, await wire.channelFor(wire.ours, client()));
    async function* hello() {
      yield SessionRequest.fromPartial({ message: { $case: 'hello', value: { host: 'host2' } } });
    }
    const first = async () => {
      for await (const message of agents.session(hello(), { signal: patience() })) return message;
      return null;
    };
    expect((await failure(first())).code).toBe(Status.PERMISSION_DENIED);
    expect(wire.rig.api.sessions.hosts()).toEqual([]);
  });
});

describe('somebody else', () => {
  const list = (channel: Channel, metadata = Metadata()) =>
    createClient(VmServiceDefinition, channel).listVms({}, { signal: patience(), metadata });

  it.each<[string, () => Promise<Channel>]>([
    ['without a certificate', () => wire.channelFor(null)],
    ['with a certificate of another authority', () => wire.channelFor(wire.theirs, client())],
  ])('%s does not get through the handshake', async (_name, channel) => {
    expect((await failure(list(await channel()))).code).toBe(Status.UNAVAILABLE);
  });

  it.each<[string, Identity[]]>([
    ['a client of another cluster', [client('admin', 'other')]],
    ['a host', [host('host2')]],
    ['a controller', [{ kind: 'controller', cluster: 'test', host: 'host1' }]],
  ])('%s is not authenticated, whatever it claims in a header', async (_name, identities) => {
    const channel = await wire.channelFor(wire.ours, ...identities);
    expect((await failure(list(channel))).code).toBe(Status.UNAUTHENTICATED);
    const names = `URI:${identityUri(client())}, URI:${roleUri('test', 'admin')}`;
    const span = { valid_from: 'Nov 24 15:43:34 2020 GMT', valid_to: 'Nov 24 15:43:34 2036 GMT' };
    const forged = { serialNumber: '4A', subjectaltname: names, ...span };
    const claim = Metadata({ [PEER_KEY]: Buffer.from(JSON.stringify(forged)) });
    expect((await failure(list(channel, claim))).code).toBe(Status.UNAUTHENTICATED);
  });

  it('a host speaks for itself alone', async () => {
    const agents = createClient(AgentServiceDefinition, await wire.channelFor(wire.ours, host('host2')));
    const begin = (name: string) => async () => {
      async function* hello() {
        yield SessionRequest.fromPartial({ message: { $case: 'hello', value: { host: name } } });
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
      for await (const { message } of agents.session(hello(), { signal: patience() })) return message?.$case;
      return null;
    };
    expect((await failure(begin('host1')())).code).toBe(Status.PERMISSION_DENIED);
    expect(await begin('host2')()).toBe('welcome');
    const other = createClient(AgentServiceDefinition, await wire.channelFor(wire.ours, host('host2', 'other')));
    const foreign = async () => {
      for await (const message of other.session((async function* () {})(), { signal: patience() })) return message;
      return null;
    };
    expect((await failure(foreign())).code).toBe(Status.PERMISSION_DENIED);
  });
});

describe('an attach stream over the wire', () => {
  it('carries a log, which has no input, to its end', async () => {
    const agents = createClient(AgentServiceDefinition, await wire.channelFor(wire.ours, host('host2')));
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
    await expect.poll(() => wire.rig.api.sessions.observed('host2')?.connected).toBe(true);
    const order = {
      vmId: 'v',
      kind: AttachKind.LOG,
      tailBytes: 0n,
      follow: true,
      caller: 'client/anna',
      role: 'operator',
    };
    let text = '';
    for await (const chunk of await wire.rig.api.sessions.attach(
      'host2',
      order,
      (async function* () {})(),
      stop.signal,
    ))
      text += Buffer.from(chunk).toString();
    expect(text).toBe(Array.from({ length: 20 }, (_, i) => `${i};`).join(''));
    stop.abort();
    await serving;
  });
});
