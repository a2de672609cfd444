// SPDX-License-Identifier: Apache-2.0
import { connect, type TLSSocket } from 'node:tls';
import type { Authority, KeyPairPem } from '@busbar/pki/authority';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { NetworkServiceDefinition } from '@busbar/proto/gen/busbar/v1/network';
import { type Channel, ClientError, createClient, Metadata, Status } from 'nice-grpc';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { answerOf, clientCertificate, DAY_MS, newAuthority, openPost, startWire, type Wire } from '../testing/wire.ts';
import { ERROR_TRAILER } from './status.ts';

/** What a hostile or broken caller does, on both transports. The heavy ones are in faults.conformance.test.ts. */
vi.setConfig({ testTimeout: 30_000 });
const TEN_MB = 10 * 1024 ** 2;
const CREATE = '/busbar.v1.NetworkService/CreateNetwork';

let ours: Authority;
let wire: Wire;
let admin: KeyPairPem;
let viewer: KeyPairPem;
beforeAll(async () => {
  ours = await newAuthority('ours', new Date(Date.now() - 3 * DAY_MS));
  wire = await startWire(ours);
  [admin, viewer] = [await wire.client('admin'), await wire.client('viewer')];
});
afterAll(() => wire.stop());

type DynamicClient = Record<string, (request: unknown, options: object) => Promise<unknown> & AsyncIterable<unknown>>;

/** Status and reason of a refused call over gRPC. */
async function refusal(work: (options: object) => Promise<unknown>): Promise<[string, string]> {
  let trailer = Metadata();
  const error: unknown = await work({
    signal: AbortSignal.timeout(10_000),
    onTrailer: (got: Metadata) => {
      trailer = got;
    },
  }).then(
    () => new Error('was answered'),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ClientError)) throw error;
  const info = trailer.get(ERROR_TRAILER);
  return [Status[error.code] ?? '', info === undefined ? '' : ErrorInfo.decode(info as Uint8Array).reason];
}

describe('a body of 10 MB', () => {
  it('is refused over gRPC, and others do not notice', async () => {
    const networks = createClient(NetworkServiceDefinition, wire.channel(admin));
    const name = 'x'.repeat(TEN_MB);
    expect(await refusal((options) => networks.createNetwork({ name }, options))).toEqual(['RESOURCE_EXHAUSTED', '']);
    await expect(networks.listNetworks({})).resolves.toBeDefined();
  });

  it('is refused over HTTPS before it is sent', async () => {
    const answer = await wire.post(CREATE, Buffer.alloc(TEN_MB, 'x'), admin);
    expect(answer).toMatchObject({
      status: 413,
      headers: { connection: 'close' },
      json: { code: 'RESOURCE_EXHAUSTED', reason: 'REQUEST_TOO_LARGE' },
    });
  });

  it('without a length is cut off', async () => {
    const socket = await tlsTo(wire.edgePort, admin);
    let text = '';
    let sent = 0;
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {});
    socket.write(`POST ${CREATE} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n`);
    const chunk = `${(64 * 1024).toString(16)}\r\n${'x'.repeat(64 * 1024)}\r\n`;
    while (text === '' && !socket.destroyed && sent < 10 * TEN_MB) {
      sent += chunk.length;
      if (!socket.write(chunk)) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await closed;
    expect(text).toMatch(/^HTTP\/1\.1 413 [\s\S]*REQUEST_TOO_LARGE/);
    expect(sent).toBeLessThan(3 * TEN_MB);
  });

  it('is not even sent by whoever asks before', async () => {
    const headers = { expect: '100-continue', 'content-length': String(TEN_MB) };
    const made = openPost(wire.edgePort, wire.ca, CREATE, undefined, admin, { headers });
    let told = 0;
    made.on('continue', () => told++);
    expect(await answerOf(made)).toMatchObject({ status: 413, json: { reason: 'REQUEST_TOO_LARGE' } });
    expect(told).toBe(0);
    // A small one is let on.
    const body = JSON.stringify({ name: 'a b' });
    const small = openPost(wire.edgePort, wire.ca, CREATE, body, admin, { headers: { expect: '100-continue' } });
    small.on('continue', () => told++);
    expect((await answerOf(small)).status).toBe(400);
    expect(told).toBe(1);
  });
});

function tlsTo(port: number, own: KeyPairPem): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, ca: wire.ca, cert: own.certificatePem, key: own.keyPem });
    socket.once('secureConnect', () => resolve(socket)).once('error', reject);
  });
}

describe('a certificate', () => {
  const at = (days: number) => new Date(Date.now() + days * DAY_MS);
  const list = (channel: Channel) => (options: object) =>
    createClient(NetworkServiceDefinition, channel).listNetworks({}, options);

  // Over HTTPS each is told in words: edge/server.test.ts.
  it.each<[string, string, () => Promise<KeyPairPem | null>]>([
    ['that has ended', 'UNAVAILABLE', () => clientCertificate(ours, 'admin', { now: at(-2) })],
    ['of the future', 'UNAVAILABLE', () => clientCertificate(ours, 'admin', { now: at(0.5) })],
    ['of another authority', 'UNAVAILABLE', async () => clientCertificate(await newAuthority('theirs'), 'admin')],
    [
      'of an authority of the same name',
      'UNAVAILABLE',
      async () => clientCertificate(await newAuthority('ours'), 'admin'),
    ],
    ['of another cluster', 'UNAUTHENTICATED', () => clientCertificate(ours, 'admin', { cluster: 'other' })],
    ['that is missing', 'UNAVAILABLE', async () => null],
  ])('%s: %s over gRPC', async (_what, status, own) => {
    expect((await refusal(list(wire.channel(await own()))))[0]).toBe(status);
  });

  it('that is right is taken', async () => {
    await expect(list(wire.channel(viewer))({})).resolves.toBeDefined();
  });
});

describe('a viewer', () => {
  it('is refused by every call that changes something, over gRPC and over HTTPS', async () => {
    const channel = wire.channel(viewer);
    const before = await wire.rig.stored();
    let mutating = 0;
    for (const { definition, methods } of wire.rig.services) {
      const client = createClient(definition as never, channel) as unknown as DynamicClient;
      for (const [key, rpc] of Object.entries(definition.methods)) {
        const access = methods[key]?.access;
        // A viewer may have its own certificate renewed; who joins comes with a token and no role.
        if (access === 'read' || access === 'renew' || access === 'join') continue;
        mutating++;
        const what = `${definition.name}/${rpc.name}`;
        async function* one() {
          yield {};
        }
        const call = async (options: object) => {
          const result = client[key]?.(rpc.requestStream ? one() : {}, options);
          if (rpc.responseStream) for await (const _ of result as AsyncIterable<unknown>) return;
          else await result;
        };
        expect(await refusal(call), what).toEqual(['PERMISSION_DENIED', 'ROLE_TOO_LOW']);
        const answer = await wire.post(`/${definition.fullName}/${rpc.name}`, {}, viewer);
        expect([answer.status, answer.json.reason], what).toEqual(
          rpc.requestStream ? [501, 'NOT_OVER_HTTP'] : [403, 'ROLE_TOO_LOW'],
        );
      }
    }
    expect(mutating).toBeGreaterThan(15);
    expect(await wire.rig.stored()).toEqual(before);
  });
});

describe('a request id', () => {
  const request = {
    name: 'once',
    spec: { kind: BridgeKind.LINUX, bridge: 'br-vm', vlanTag: 0, trunkVlans: [] },
    requestId: 'replay-1',
  };

  it('with the same content has the same answer on either transport, with another one is refused on both', async () => {
    const networks = createClient(NetworkServiceDefinition, wire.channel(admin));
    const made = await networks.createNetwork(request);
    const again = await wire.post(CREATE, request, admin);
    expect(again).toMatchObject({ status: 200, json: { network: { meta: { id: made.network?.meta?.id } } } });

    const other = { ...request, name: 'twice' };
    expect(await refusal((options) => networks.createNetwork(other, options))).toEqual([
      'ALREADY_EXISTS',
      'REQUEST_ID_REUSED',
    ]);
    expect(await wire.post(CREATE, other, admin)).toMatchObject({
      status: 409,
      json: { code: 'ALREADY_EXISTS', reason: 'REQUEST_ID_REUSED' },
    });
    // Another caller's ids are its own.
    const somebody = await wire.client('operator');
    expect(await wire.post(CREATE, other, somebody)).toMatchObject({ status: 200 });
  });
});
