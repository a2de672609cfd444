// SPDX-License-Identifier: Apache-2.0
/**
 * Goal: certificates are replaced while the daemons run, and nobody who is connected notices.
 * Method: real TLS, with certificates that live for seconds and are renewed from files.
 */
import { writeFileSync } from 'node:fs';
import { createSecureServer, type ServerHttp2Session } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:tls';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { type Pair, type TestAuthority, testAuthority, tlsFiles } from '@busbar/pki/tls/authority.fixture';
import type { TlsFiles } from '@busbar/pki/tls/files';
import { keepRenewed, renewOnce } from '@busbar/pki/tls/renewal';
import { fixedTls, openTlsSource, type TlsSource } from '@busbar/pki/tls/source';
import { Client, type ServiceError, status } from '@grpc/grpc-js';
import { type Channel, createChannel, createClient } from 'nice-grpc';
import { HealthDefinition } from 'nice-grpc-server-health';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type GrpcServer, grpcServer } from '../api/grpc-server.ts';
import { ADMIT_ALL } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import { channelCredentials } from './credentials.ts';

let authority: TestAuthority;
const disposables: Disposable[] = [];
beforeEach(async () => {
  authority = await testAuthority();
});
afterEach(() => {
  for (const disposable of disposables.splice(0).reverse()) disposable[Symbol.dispose]();
});
const onEnd = (end: () => void) => void disposables.push({ [Symbol.dispose]: end });

const CLIENT = ['spiffe://lab/client/test', 'spiffe://lab/role/viewer'];
const order = (lifeMs: number, uris = ['spiffe://lab/controller/host1']) => ({
  uris,
  ips: ['127.0.0.1'],
  notBefore: new Date(Date.now() - 60_000),
  notAfter: new Date(Date.now() + lifeMs),
});

async function sourceOf(pair: Pair): Promise<{ source: TlsSource; files: TlsFiles }> {
  const files = tlsFiles(authority, pair);
  disposables.push(files);
  return { files, source: await openTlsSource({ files, clock: systemClock, logger: silentLogger }) };
}

async function serve(source: TlsSource): Promise<number> {
  const rig = new Rig();
  const { services, api } = rig;
  const server: GrpcServer = grpcServer({
    cluster: 'lab',
    services,
    sessions: api.sessions,
    trail: rig.trail,
    admission: ADMIT_ALL,
    tls: source,
    clock: systemClock,
    logger: silentLogger,
  });
  onEnd(() => server.close());
  return server.listen('127.0.0.1:0');
}

async function clientOf(port: number): Promise<Channel> {
  const { certificatePem, keyPem } = await authority.issue(order(3_600_000, CLIENT));
  const pair = { certificate: Buffer.from(certificatePem), key: Buffer.from(keyPem) };
  const feed = fixedTls({ ca: Buffer.from(authority.certificatePem), ...pair });
  const channel = createChannel(`localhost:${port}`, channelCredentials(feed), { 'grpc.use_local_subchannel_pool': 1 });
  onEnd(() => channel.close());
  return channel;
}

/** Serial number that a new connection is shown; null when the certificate is refused. */
async function serialSeen(port: number): Promise<string | null> {
  const client = await authority.issue(order(3_600_000, CLIENT));
  return new Promise((resolve) => {
    const socket = connect({
      port,
      host: '127.0.0.1',
      ca: authority.certificatePem,
      cert: client.certificatePem,
      key: client.keyPem,
      ALPNProtocols: ['h2'],
    });
    socket.once('secureConnect', () => {
      resolve(socket.getPeerX509Certificate()?.serialNumber ?? null);
      socket.destroy();
    });
    socket.once('error', () => resolve(null));
  });
}

async function until(condition: () => boolean | Promise<boolean>, limitMs = 15_000): Promise<void> {
  const endMs = systemClock.nowMs() + limitMs;
  while (!(await condition())) {
    if (systemClock.nowMs() > endMs) throw new Error(`not within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test('a controller whose certificate lives for seconds serves on for longer, and an open stream survives every renewal', async () => {
  const { source, files } = await sourceOf(await authority.issue(order(3_000)));
  const stop = new AbortController();
  const issued: string[] = [source.current().serialNumber];
  const renewer = {
    renew: async (csr: string) => ({ certificatePem: await authority.certify(csr, order(3_000)) }),
  };
  const kept = keepRenewed(
    {
      current: () => source.current(),
      renew: async (signal) => {
        await renewOnce({ source, files, renewer, logger: silentLogger }, signal);
        issued.push(source.current().serialNumber);
      },
      clock: systemClock,
      logger: silentLogger,
    },
    stop.signal,
  );
  const firstEndMs = source.current().notAfter.getTime();
  const port = await serve(source);
  const channel = await clientOf(port);
  const health = createClient(HealthDefinition, channel);
  const seen: unknown[] = [];
  const hangUp = new AbortController();
  const stream = (async () => {
    for await (const message of health.watch({ service: '' }, { signal: hangUp.signal })) seen.push(message);
    return 'ended';
  })().catch((error: unknown) => error);
  await until(() => seen.length === 1);

  // Twice the life of the first certificate.
  await until(() => Date.now() > firstEndMs + 3_000);
  expect(issued.length).toBeGreaterThanOrEqual(3);
  const shown = await serialSeen(port);
  expect(shown).not.toBe(issued[0]);
  expect(issued).toContain(shown);
  // The stream is open, and its connection, which began with a certificate that has ended, carries new calls.
  expect(await Promise.race([stream, Promise.resolve('open')])).toBe('open');
  await health.check({ service: '' }, { signal: AbortSignal.timeout(4_000) });
  hangUp.abort();
  await stream;
  stop.abort();
  await kept;
}, 30_000);

test('without a renewal, new connections are refused once the certificate has ended', async () => {
  const { source } = await sourceOf(await authority.issue(order(2_000)));
  const port = await serve(source);
  expect(await serialSeen(port)).toBe(source.current().serialNumber);
  await until(() => Date.now() > source.current().notAfter.getTime() + 10);
  expect(await serialSeen(port)).toBeNull();
}, 30_000);

test('a pair that does not fit changes nothing; the one that repairs it does', async () => {
  const first = await authority.issue(order(3_600_000));
  const { source, files } = await sourceOf(first);
  const port = await serve(source);
  const [former, second] = [source.current().serialNumber, await authority.issue(order(3_600_000))];
  writeFileSync(files.key, second.keyPem);
  for (let look = 0; look < 3; look++) await source.refresh();
  expect(await serialSeen(port)).toBe(former);
  writeFileSync(files.certificate, second.certificatePem);
  await source.refresh();
  expect(await serialSeen(port)).toBe(source.current().serialNumber);
  expect(source.current().serialNumber).not.toBe(former);
}, 30_000);

test('a client, such as that of etcd, keeps its connection and shows the new certificate at the next one', async () => {
  const server = await authority.issue(order(3_600_000));
  const sessions: ServerHttp2Session[] = [];
  const serials: (string | undefined)[] = [];
  const listener = createSecureServer({
    ca: authority.certificatePem,
    cert: server.certificatePem,
    key: server.keyPem,
    requestCert: true,
  });
  listener.on('secureConnection', (socket) => serials.push(socket.getPeerX509Certificate()?.serialNumber));
  listener.on('session', (session) => sessions.push(session));
  listener.on('stream', (stream) => {
    const trailers = { 'grpc-status': '8', 'grpc-message': 'busy' };
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...trailers }, { endStream: true });
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  onEnd(() => listener.close());

  const { source, files } = await sourceOf(await authority.issue(order(3_600_000)));
  const address = `localhost:${(listener.address() as AddressInfo).port}`;
  const client = new Client(address, channelCredentials(source), { 'grpc.initial_reconnect_backoff_ms': 50 });
  onEnd(() => client.close());
  const call = () =>
    new Promise<number>((resolve) => {
      const bytes = (value: Buffer) => value;
      const deadline = Date.now() + 10_000;
      client.makeUnaryRequest(
        '/x.Y/Z',
        bytes,
        bytes,
        Buffer.alloc(0),
        { deadline } as never,
        (error: ServiceError | null) => resolve(error?.code ?? -1),
      );
    });
  expect(await call()).toBe(status.RESOURCE_EXHAUSTED);
  const former = source.current().serialNumber;
  const second = await authority.issue(order(3_600_000));
  writeFileSync(files.certificate, second.certificatePem);
  writeFileSync(files.key, second.keyPem);
  await source.refresh();
  expect(await call()).toBe(status.RESOURCE_EXHAUSTED);
  expect(sessions).toHaveLength(1);
  sessions[0]?.destroy();
  await until(async () => (await call()) === status.RESOURCE_EXHAUSTED && sessions.length === 2);
  expect(serials).toEqual([former, source.current().serialNumber]);
  expect(source.current().serialNumber).not.toBe(former);
}, 30_000);
