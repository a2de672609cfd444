// SPDX-License-Identifier: Apache-2.0
/** Whom the agent believes to be a controller. Certificates by openssl, as a plant would. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createSecureServer, type Http2SecureServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PeerCertificate } from 'node:tls';
import { type SessionRequest, SessionResponse } from '@busbar/proto/gen/busbar/agent/v1/agent';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { controllerCheck, GrpcDialer } from './grpc-dialer.ts';

const directory = mkdtempSync(join(tmpdir(), 'busbar-dialer-'));
const read = (name: string) => readFileSync(join(directory, name));

function openssl(...args: readonly string[]): void {
  execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
}

function newKey(name: string): string[] {
  return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${name}.key`];
}

function issue(name: string, uri: string): void {
  openssl('req', ...newKey(name), '-out', `${name}.csr`, '-subj', `/CN=${name}`);
  writeFileSync(join(directory, `${name}.ext`), `subjectAltName=DNS:host1,IP:127.0.0.1,URI:${uri}\n`);
  const signer = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2'];
  openssl('x509', '-req', '-in', `${name}.csr`, ...signer, '-extfile', `${name}.ext`, '-out', `${name}.crt`);
}

let server: Http2SecureServer | undefined;
let dialer: GrpcDialer | undefined;

beforeAll(() => {
  openssl('req', '-x509', ...newKey('ca'), '-out', 'ca.crt', '-subj', '/CN=ca', '-days', '2');
  issue('controller', 'spiffe://lab/controller/host1');
  issue('agent', 'spiffe://lab/host/host1');
  issue('elsewhere', 'spiffe://plant/controller/host1');
  issue('other', 'spiffe://lab/controller/host2');
}, 60_000);
afterEach(async () => {
  await dialer?.close();
  server?.close();
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

type Answer = (stream: ServerHttp2Stream) => void;
const busy: Answer = (stream) => {
  const status = { 'grpc-status': '8', 'grpc-message': 'busy' };
  stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...status }, { endStream: true });
};

/** Opens a session with whoever has this certificate. Once believed, it answers that it is busy, or as told. */
async function dial(certificate: string, answer: Answer = busy): Promise<SessionResponse[]> {
  const pair = { cert: read(`${certificate}.crt`), key: read(`${certificate}.key`) };
  const made = createSecureServer({ ...pair, ca: read('ca.crt'), requestCert: true });
  server = made;
  made.on('stream', (stream) => {
    stream.on('error', () => {});
    answer(stream);
  });
  await new Promise<void>((resolve) => made.listen(0, '127.0.0.1', resolve));
  const address = `127.0.0.1:${(made.address() as AddressInfo).port}`;
  dialer = new GrpcDialer({
    cluster: 'lab',
    controllers: [{ host: 'host1', address }],
    loadTls: () => ({ ca: read('ca.crt'), certificate: read('agent.crt'), key: read('agent.key') }),
  });
  async function* nothing(): AsyncGenerator<SessionRequest, void> {}
  const heard: SessionResponse[] = [];
  for await (const response of dialer.session(address, nothing(), AbortSignal.timeout(20_000))) heard.push(response);
  return heard;
}

test('the controller of that host is believed', async () => {
  await expect(dial('controller')).rejects.toThrow(/^busy$/);
}, 30_000);

test.each([
  ['the agent of the same host', 'agent'],
  ['a controller of another cluster', 'elsewhere'],
  ['the controller of another host', 'other'],
])(
  '%s is not',
  async (_, certificate) => {
    await expect(dial(certificate)).rejects.toThrow('certified, but not as controller host1 of cluster lab');
  },
  30_000,
);

/** Flag and length, then the message; what is said of the length need not be true. */
function frame(message: Uint8Array, bytes = message.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes, 1);
  return Buffer.concat([head, message]);
}
const messages = (frames: readonly Buffer[]): Answer => {
  return (stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    for (const one of frames) stream.write(one);
    stream.end();
  };
};

test('bytes that are no messages end that session with a reason, and nothing else', async () => {
  const ack = SessionResponse.encode({ message: { $case: 'heartbeatAck', value: { number: 7n } } }).finish();
  let broken = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 3 }), async (all) => {
      const outcome = await dial('controller', messages([frame(ack), ...all.map((one) => frame(one))])).catch(
        (e: unknown) => e,
      );
      await dialer?.close();
      server?.close();
      if (Array.isArray(outcome)) {
        // All of them happened to be messages, if strange ones.
        expect(outcome).toHaveLength(1 + all.length);
        return;
      }
      broken++;
      expect(outcome).toMatchObject({ reason: 'CONTROLLER_UNREACHABLE', message: expect.stringMatching(/\S/) });
    }),
    { numRuns: 40 },
  );
  expect(broken).toBeGreaterThan(5);
}, 60_000);

test('a message that is longer than may be sent is not waited for', async () => {
  const endless = messages([frame(Buffer.alloc(1024), 0x7fff_ffff)]);
  await expect(dial('controller', endless)).rejects.toMatchObject({ reason: 'CONTROLLER_UNREACHABLE' });
}, 30_000);

test('a message that is cut off is not heard', async () => {
  expect(await dial('controller', messages([frame(Buffer.alloc(10), 1000)]))).toEqual([]);
}, 30_000);

test.each([
  ['DNS:host1, URI:spiffe://lab/controller/host1', true],
  ['URI:spiffe://lab/host/host1, URI:spiffe://lab/controller/host1, DNS:host1', true],
  ['DNS:host1, URI:spiffe://lab/controller/host1/x', false],
  ['DNS:host1, DNS:"x, URI:spiffe://lab/controller/host1"', false],
  ['DNS:host1, DNS:"x, URI:spiffe://lab/controller/host1, y"', false],
  ['DNS:host1, DNS:"\\", URI:spiffe://lab/controller/host1, "', false],
  ['DNS:host2, URI:spiffe://lab/controller/host1', false],
  ['DNS:host1', false],
])('%s', (subjectaltname, believed) => {
  const certificate = { subject: { CN: 'host1' }, subjectaltname } as unknown as PeerCertificate;
  expect(controllerCheck('lab', 'host1')('host1', certificate) === undefined).toBe(believed);
});
