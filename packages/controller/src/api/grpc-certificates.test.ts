// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { type ClientHttp2Session, connect } from 'node:http2';
import { issue, type KeyPairPem } from '@busbar/pki/authority';
import { identityUri } from '@busbar/pki/identity';
import { roleUri } from '@busbar/pki/role';
import { AgentServiceDefinition, SessionRequest } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { CertificateServiceDefinition } from '@busbar/proto/gen/busbar/v1/certificate';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { NetworkServiceDefinition } from '@busbar/proto/gen/busbar/v1/network';
import { VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import { type Channel, createClient, Status } from 'nice-grpc';
import { HealthDefinition } from 'nice-grpc-server-health';
import { describe, expect, it } from 'vitest';
import { Rig } from '../testing/rig.ts';
import { certificate, client, failure, host, NOW, patience, reflected, wired } from './grpc-server.fixture.ts';

const wire = wired();
/** For a machine that is busy with other things. */
const PATIENCE = { timeout: 15_000 };

async function revoked(own: KeyPairPem): Promise<void> {
  const admin = createClient(CertificateServiceDefinition, await wire.channelFor(wire.ours, client()));
  const serial = new X509Certificate(own.certificatePem).serialNumber;
  await admin.revokeCertificate({ serial, unrecorded: true }, { signal: patience() });
}

describe('a revoked certificate', () => {
  const revoke = revoked;

  it('is refused on the connection that it has, and on a new one', async () => {
    const own = await certificate(wire.ours, client('anna'));
    const vms = createClient(VmServiceDefinition, wire.channelWith(own));
    await vms.listVms({}, { signal: patience() });
    await revoke(own);
    for (const each of [vms, createClient(VmServiceDefinition, wire.channelWith(own))]) {
      const error = await failure(each.listVms({}, { signal: patience() }));
      expect([error.code, error.details.split(':')[0]]).toEqual([Status.UNAUTHENTICATED, 'CERTIFICATE_REVOKED']);
    }
  });

  it('ends the watch that it has open within a second', async () => {
    const own = await certificate(wire.ours, client('anna'));
    const networks = createClient(NetworkServiceDefinition, wire.channelWith(own));
    const other = createClient(NetworkServiceDefinition, await wire.channelFor(wire.ours, client()));
    const stop = new AbortController();
    const ended = async () => {
      for await (const _ of networks.watchNetworks({}, { signal: patience() })) void _;
    };
    let others = 0;
    const goesOn = (async () => {
      for await (const _ of other.watchNetworks({}, { signal: stop.signal })) others++;
    })().catch(() => {});
    const end = failure(ended());
    await expect.poll(() => others, PATIENCE).toBeGreaterThan(0);
    const began = performance.now();
    await revoke(own);
    const error = await end;
    expect([error.code, error.details.split(':')[0]]).toEqual([Status.UNAUTHENTICATED, 'CERTIFICATE_REVOKED']);
    expect(performance.now() - began).toBeLessThan(2_000);
    // The one of another certificate still hears of changes.
    const before = others;
    await other.createNetwork(
      { name: 'plant', spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } },
      { signal: patience() },
    );
    await expect.poll(() => others, PATIENCE).toBeGreaterThan(before);
    stop.abort();
    await goesOn;
  });

  it('ends the session of its agent, and lets none begin', async () => {
    const own = await certificate(wire.ours, host('host2'));
    const agents = createClient(AgentServiceDefinition, wire.channelWith(own));
    async function* hello() {
      yield SessionRequest.fromPartial({ message: { $case: 'hello', value: { host: 'host2' } } });
      await new Promise<void>((resolve) => setTimeout(resolve, 10_000).unref());
    }
    const session = async () => {
      for await (const _ of agents.session(hello(), { signal: patience() })) void _;
    };
    const end = failure(session());
    await expect.poll(() => wire.rig.api.sessions.observed('host2')?.connected, PATIENCE).toBe(true);
    await revoke(own);
    const refused = [Status.UNAUTHENTICATED, 'CERTIFICATE_REVOKED'];
    const first = await end;
    expect([first.code, first.details.split(':')[0]]).toEqual(refused);
    await expect.poll(() => wire.rig.api.sessions.observed('host2')?.connected, PATIENCE).toBe(false);
    const second = await failure(session());
    expect([second.code, second.details.split(':')[0]]).toEqual(refused);
  });
});

describe('an expired certificate', () => {
  it('does not get through the handshake', async () => {
    const past = new Date(NOW.getTime() - 3 * 86_400_000);
    const identity = [identityUri(client()), roleUri('test', 'admin')];
    const expired = await issue(wire.ours, {
      commonName: 'x',
      now: past,
      validDays: 1,
      uris: identity,
      usages: ['clientAuth'],
    });
    const vms = createClient(VmServiceDefinition, wire.channelWith(expired));
    expect((await failure(vms.listVms({}, { signal: patience() }))).code).toBe(Status.UNAVAILABLE);
  });

  it('is refused on a connection that outlives it', async () => {
    const vms = createClient(VmServiceDefinition, await wire.channelFor(wire.ours, client()));
    await vms.listVms({}, { signal: patience() });
    wire.rig.clock.jumpWall(86_400_000 + 1_000);
    const error = await failure(vms.listVms({}, { signal: patience() }));
    expect([error.code, error.details.split(':')[0]]).toEqual([Status.UNAUTHENTICATED, 'CERTIFICATE_EXPIRED']);
  });
});

describe('health and reflection', () => {
  const health = (channel: Channel) => createClient(HealthDefinition, channel);
  const refusals = async (channel: Channel) => [
    await failure(health(channel).check({ service: '' }, { signal: patience() })),
    await failure(
      (async () => {
        for await (const _ of health(channel).watch({ service: '' }, { signal: patience() })) void _;
      })(),
    ),
    await failure(reflected(channel)),
  ];

  it('answer whoever is of this cluster', async () => {
    for (const who of [client(), host('host2')]) {
      const channel = await wire.channelFor(wire.ours, who);
      expect((await health(channel).check({ service: '' }, { signal: patience() })).status).toBe(1);
      expect(await reflected(channel)).toContain('VmService');
    }
  });

  it('are closed to a revoked certificate, like everything else', async () => {
    const own = await certificate(wire.ours, client('anna'));
    await revoked(own);
    for (const error of await refusals(wire.channelWith(own)))
      expect([error.code, error.details.split(':')[0]]).toEqual([Status.UNAUTHENTICATED, 'CERTIFICATE_REVOKED']);
  });

  it.each<[string, () => Promise<KeyPairPem>]>([
    ['of another cluster', () => certificate(wire.ours, client('anna', 'other'))],
    [
      'of nobody, as that of a NATS server',
      () => issue(wire.ours, { commonName: 'x', now: NOW, validDays: 1, dns: ['host2'], usages: ['clientAuth'] }),
    ],
  ])('are closed to a certificate %s', async (_name, make) => {
    for (const error of await refusals(wire.channelWith(await make())))
      expect([error.code, error.details.split(':')[0]]).toEqual([
        Status.UNAUTHENTICATED,
        'CLIENT_CERTIFICATE_REQUIRED',
      ]);
  });
});

describe('the connection', () => {
  const POST = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' };
  const session = (own: KeyPairPem, host = 'localhost') => {
    const { certificatePem: cert, keyPem: key } = own;
    return connect(`https://${host}:${wire.port}`, {
      ca: wire.ours.certificatePem,
      cert,
      key,
      servername: 'localhost',
    });
  };
  const connected = (of: ClientHttp2Session) => new Promise((resolve) => of.once('remoteSettings', resolve));
  const closed = (of: ClientHttp2Session) =>
    Promise.race([
      new Promise((resolve) => of.once('close', () => resolve('closed'))),
      new Promise((resolve) => setTimeout(() => resolve('open'), 3_500)),
    ]);

  it('of a revoked certificate is closed, with whatever is open on it, and that of another goes on', async () => {
    const own = await certificate(wire.ours, client('anna'));
    const other = await certificate(wire.ours, client('bert'));
    const [theirs, others] = [session(own), session(other)];
    await Promise.all([connected(theirs), connected(others)]);
    let left = false;
    theirs.once('goaway', () => {
      left = true;
    });
    // A stream that its service would keep open for ever.
    const stream = theirs.request({ ...POST, ':path': '/grpc.health.v1.Health/Watch' });
    stream.on('error', () => {}).resume();
    stream.write(Buffer.alloc(5));
    const end = closed(theirs);
    await revoked(own);
    expect([await end, left]).toEqual(['closed', true]);
    expect(others.destroyed).toBe(false);
    others.destroy();
    // Nor does it stay when it comes again and says nothing.
    expect(await closed(session(own))).toBe('closed');
  }, 20_000);

  it('of an agent is closed by a revocation, not by the end of its certificate', async () => {
    const own = await certificate(wire.ours, host('host2'));
    const agent = session(own);
    await connected(agent);
    wire.rig.clock.jumpWall(86_400_000 + 60_000);
    expect(await closed(agent)).toBe('open');
    wire.rig.clock.jumpWall(-86_400_000 - 60_000);
    const end = closed(agent);
    await revoked(own);
    expect(await end).toBe('closed');
  }, 20_000);

  it('is for calls to this cluster by its own names', async () => {
    const own = session(await certificate(wire.ours, client()));
    const reasonOf = async (authority: string) => {
      const stream = own.request({ ...POST, ':path': '/busbar.v1.VmService/ListVms', ':authority': authority });
      const status = new Promise<string>((resolve) => {
        const look = (headers: IncomingHttpHeaders) => {
          if (headers['grpc-status'] !== undefined) resolve(String(headers['grpc-message'] ?? '').split(':')[0] ?? '');
        };
        stream
          .on('response', look)
          .on('trailers', look)
          .on('error', () => {})
          .resume();
      });
      stream.setEncoding('utf8').end(Buffer.alloc(5));
      return await status;
    };
    expect(await reasonOf(`localhost:${wire.port}`)).toBe('OK');
    expect(await reasonOf(`evil.example:${wire.port}`)).toBe('OTHER_HOST');
    own.destroy();
  });
});

describe('a certificate that ends while it is in use', () => {
  const watching = (own: KeyPairPem) => {
    const networks = createClient(NetworkServiceDefinition, wire.channelWith(own));
    let seen = 0;
    const over = failure(
      (async () => {
        for await (const _ of networks.watchNetworks({}, { signal: AbortSignal.timeout(20_000) })) seen++;
      })(),
    );
    return { over, seen: () => seen };
  };

  it('ends the watch that it has open', async () => {
    const { over, seen } = watching(await certificate(wire.ours, client('anna')));
    await expect.poll(seen, PATIENCE).toBeGreaterThan(0);
    wire.rig.clock.jumpWall(86_400_000 - 60_000);
    const before = seen();
    const networks = createClient(NetworkServiceDefinition, await wire.channelFor(wire.ours, client()));
    await networks.createNetwork({ name: 'plant', spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } });
    await expect.poll(seen, PATIENCE).toBeGreaterThan(before);
    wire.rig.clock.jumpWall(60_000 + 1_000);
    const error = await over;
    expect([error.code, error.details.split(':')[0]]).toEqual([Status.UNAUTHENTICATED, 'CERTIFICATE_EXPIRED']);
  });

  it('lets its agent keep the session that it has, and begin no other', async () => {
    const own = await certificate(wire.ours, host('host2'));
    const agents = createClient(AgentServiceDefinition, wire.channelWith(own));
    async function* hello() {
      yield SessionRequest.fromPartial({ message: { $case: 'hello', value: { host: 'host2' } } });
      await new Promise<void>((resolve) => setTimeout(resolve, 10_000).unref());
    }
    const stop = new AbortController();
    const session = async () => {
      for await (const _ of agents.session(hello(), { signal: stop.signal })) void _;
    };
    const first = session().catch(() => {});
    await expect.poll(() => wire.rig.api.sessions.observed('host2')?.connected, PATIENCE).toBe(true);
    wire.rig.clock.jumpWall(86_400_000 + 60_000);
    expect(wire.rig.api.sessions.observed('host2')?.connected).toBe(true);
    const second = await failure(session());
    expect([second.code, second.details.split(':')[0]]).toEqual([Status.UNAUTHENTICATED, 'CERTIFICATE_EXPIRED']);
    expect(wire.rig.api.sessions.observed('host2')?.connected).toBe(true);
    stop.abort();
    await first;
  });
});

describe('a controller that has not read the store', () => {
  it('lets no client in, and keeps the sessions of agents', async () => {
    const dark = new Rig(1, NOW);
    await wire.serve(dark);
    const error = await failure(
      createClient(VmServiceDefinition, await wire.channelFor(wire.ours, client())).listVms({}, { signal: patience() }),
    );
    expect([error.code, error.details.split(':')[0]]).toEqual([Status.UNAVAILABLE, 'REVOCATIONS_UNKNOWN']);
    const agents = createClient(AgentServiceDefinition, await wire.channelFor(wire.ours, host('host2')));
    async function* hello() {
      yield SessionRequest.fromPartial({ message: { $case: 'hello', value: { host: 'host2' } } });
    }
    for await (const { message } of agents.session(hello(), { signal: patience() })) {
      expect(message?.$case).toBe('welcome');
      break;
    }
  });
});
