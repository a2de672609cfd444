// SPDX-License-Identifier: Apache-2.0
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { type Authority, createAuthority, issue, type KeyPairPem, openAuthority } from '@busbar/pki/authority';
import { type Identity, identityUri } from '@busbar/pki/identity';
import { roleUri } from '@busbar/pki/role';
import { fixedTls } from '@busbar/pki/tls/source';
import { type Channel, ChannelCredentials, ClientError, createChannel, createClient } from 'nice-grpc';
import { afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { Rig } from '../testing/rig.ts';
import { type GrpcServer, grpcServer } from './grpc-server.ts';

export const NOW = new Date();
export const client = (name = 'admin', cluster = 'test'): Identity => ({ kind: 'client', cluster, client: name });
export const host = (name: string, cluster = 'test'): Identity => ({ kind: 'host', cluster, host: name });
/** A test's own patience with one call: on a machine that is busy with other things a handshake alone takes seconds. */
export const patience = () => AbortSignal.timeout(10_000);

export async function certificate(by: Authority, ...identities: Identity[]): Promise<KeyPairPem> {
  const roles = identities.some(({ kind }) => kind === 'client') ? [roleUri('test', 'admin')] : [];
  const uris = [...identities.map(identityUri), ...roles];
  return issue(by, { commonName: 'x', now: NOW, validDays: 1, uris, usages: ['clientAuth'] });
}

export async function failure(call: Promise<unknown>): Promise<ClientError> {
  const error: unknown = await call.then(
    () => new Error('was answered'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ClientError);
  return error as ClientError;
}

/** What the server says of its services. */
export async function reflected(channel: Channel): Promise<string> {
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
  for await (const bytes of reflection.serverReflectionInfo(ask(), { signal: patience() }))
    return bytes.toString('latin1');
  return '';
}

export interface Wire {
  rig: Rig;
  ours: Authority;
  theirs: Authority;
  port: number;
  /** Serves another rig on a new port instead. */
  serve(rig: Rig): Promise<void>;
  channelFor(by: Authority | null, ...identities: Identity[]): Promise<Channel>;
  channelWith(own: KeyPairPem | null): Channel;
}

/** For each test a real TLS server on this machine; behind it the API on virtual time, which a real timer moves on. */
export function wired(): Wire {
  let server: GrpcServer;
  let ticking: NodeJS.Timeout;
  const channels: Channel[] = [];
  const wire = {
    async serve(rig: Rig) {
      const own = await issue(wire.ours, {
        commonName: 'server',
        now: NOW,
        validDays: 1,
        dns: ['localhost'],
        ips: ['127.0.0.1'],
        usages: ['serverAuth'],
      });
      const tls = {
        ca: Buffer.from(wire.ours.certificatePem),
        certificate: Buffer.from(own.certificatePem),
        key: Buffer.from(own.keyPem),
      };
      const { services, admission } = rig;
      server?.close();
      server = grpcServer({
        cluster: 'test',
        services,
        sessions: rig.api.sessions,
        trail: rig.trail,
        admission,
        tls: fixedTls(tls),
        clock: systemClock,
        logger: silentLogger,
      });
      wire.port = await server.listen('127.0.0.1:0');
    },
    async channelFor(by, ...identities) {
      return wire.channelWith(by === null ? null : await certificate(by, ...identities));
    },
    channelWith(own) {
      const pem = (text: string | undefined) => (text === undefined ? null : Buffer.from(text));
      const credentials = ChannelCredentials.createSsl(
        Buffer.from(wire.ours.certificatePem),
        pem(own?.keyPem),
        pem(own?.certificatePem),
      );
      const channel = createChannel(`localhost:${wire.port}`, credentials, {
        'grpc.use_local_subchannel_pool': 1,
        'grpc.max_send_message_length': -1,
        'grpc.initial_reconnect_backoff_ms': 60_000,
        'grpc.enable_retries': 0,
      });
      channels.push(channel);
      return channel;
    },
  } as Wire;

  beforeAll(async () => {
    const authority = async (commonName: string) =>
      openAuthority(await createAuthority({ commonName, now: NOW, validDays: 2 }));
    [wire.ours, wire.theirs] = [await authority('ours'), await authority('theirs')];
  });
  beforeEach(async () => {
    wire.rig = new Rig(1, NOW);
    await wire.rig.start();
    await wire.serve(wire.rig);
    ticking = setInterval(() => void wire.rig.clock.advance(5), 1);
  });
  afterEach(() => {
    clearInterval(ticking);
    for (const channel of channels.splice(0)) channel.close();
    server.close();
    wire.rig.stop();
  });
  return wire;
}
