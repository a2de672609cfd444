// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { issue, type KeyPairPem } from '@busbar/pki/authority';
import { identityUri } from '@busbar/pki/identity';
import { roleUri } from '@busbar/pki/role';
import { AgentServiceDefinition, SessionRequest } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { CertificateServiceDefinition } from '@busbar/proto/gen/busbar/v1/certificate';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { NetworkServiceDefinition } from '@busbar/proto/gen/busbar/v1/network';
import { VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import { createClient, Status } from 'nice-grpc';
import { describe, expect, it } from 'vitest';
import { Rig } from '../testing/rig.ts';
import { certificate, client, failure, host, NOW, patience, wired } from './grpc-server.fixture.ts';

const wire = wired();

describe('a revoked certificate', () => {
  const serialOf = (own: KeyPairPem) => new X509Certificate(own.certificatePem).serialNumber;
  const revoke = async (own: KeyPairPem) => {
    const admin = createClient(CertificateServiceDefinition, await wire.channelFor(wire.ours, client()));
    await admin.revokeCertificate({ serial: serialOf(own), unrecorded: true }, { signal: patience() });
  };

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
    await expect.poll(() => others).toBeGreaterThan(0);
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
    await expect.poll(() => others).toBeGreaterThan(before);
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
    await expect.poll(() => wire.rig.api.sessions.observed('host2')?.connected).toBe(true);
    await revoke(own);
    const refused = [Status.UNAUTHENTICATED, 'CERTIFICATE_REVOKED'];
    const first = await end;
    expect([first.code, first.details.split(':')[0]]).toEqual(refused);
    await expect.poll(() => wire.rig.api.sessions.observed('host2')?.connected).toBe(false);
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
    await expect.poll(seen).toBeGreaterThan(0);
    wire.rig.clock.jumpWall(86_400_000 - 60_000);
    const before = seen();
    const networks = createClient(NetworkServiceDefinition, await wire.channelFor(wire.ours, client()));
    await networks.createNetwork({ name: 'plant', spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } });
    await expect.poll(seen).toBeGreaterThan(before);
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
    await expect.poll(() => wire.rig.api.sessions.observed('host2')?.connected).toBe(true);
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
