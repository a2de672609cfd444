// SPDX-License-Identifier: Apache-2.0
import { connect, type TLSSocket } from 'node:tls';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import type { Authority, KeyPairPem } from '@busbar/pki/authority';
import { fixedTls } from '@busbar/pki/tls/source';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { NetworkServiceDefinition } from '@busbar/proto/gen/busbar/v1/network';
import { ClientError, createClient, Metadata, Status } from 'nice-grpc';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Call } from '../api/call.ts';
import { ERROR_TRAILER } from '../api/status.ts';
import {
  answerOf,
  clientCertificate,
  DAY_MS,
  newAuthority,
  openPost,
  serverFiles,
  startWire,
  type Wire,
} from '../testing/wire.ts';
import { edgeServer } from './server.ts';

let ours: Authority;
let wire: Wire;
let admin: KeyPairPem;
let viewer: KeyPairPem;

beforeAll(async () => {
  // Begun in the past, so that certificates that have ended can be of it.
  ours = await newAuthority('ours', new Date(Date.now() - 3 * DAY_MS));
  wire = await startWire(ours);
  [admin, viewer] = [await wire.client('admin'), await wire.client('viewer')];
});
afterAll(() => wire.stop());

/** For a machine that is busy with other things. */
const PATIENCE = { timeout: 15_000 };
vi.setConfig({ testTimeout: 30_000 });
const LIST = '/busbar.v1.NetworkService/ListNetworks';
const CREATE = '/busbar.v1.NetworkService/CreateNetwork';
const network = (name: string, more: object = {}) => ({
  name,
  spec: { kind: 'BRIDGE_KIND_LINUX', bridge: 'br-vm' },
  ...more,
});

describe('a call as JSON', () => {
  it('answers what the handler of gRPC answers', async () => {
    expect(await wire.post('/busbar.v1.VmService/ListVms', {}, viewer)).toMatchObject({
      status: 200,
      headers: { 'content-type': 'application/json', 'cache-control': 'no-store' },
      json: { vms: [], revision: expect.stringMatching(/^\d+$/) },
    });
    const made = await wire.post(CREATE, network('plant'), admin);
    expect(made).toMatchObject({
      status: 200,
      json: { network: { meta: { name: 'plant' }, spec: { bridge: 'br-vm' } } },
    });
    const client = createClient(NetworkServiceDefinition, wire.channel(admin));
    const { network: same } = await client.getNetwork({ network: 'plant' });
    expect(String(same?.meta?.revision)).toBe((made.json.network as { meta: { revision: string } }).meta.revision);
  });

  it('takes what curl sends by itself', async () => {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    expect(await wire.post(LIST, '{}', viewer, { headers })).toMatchObject({ status: 200 });
    expect(
      await wire.post(LIST, ' {"pageSize": 5}\n', viewer, {
        headers: { 'content-type': 'Application/JSON; charset=utf-8' },
      }),
    ).toMatchObject({ status: 200 });
  });

  it('keeps a connection for the next call', async () => {
    const { Agent } = await import('node:https');
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const ports = new Set<number | undefined>();
    for (let i = 0; i < 3; i++) {
      const made = openPost(wire.edgePort, wire.ca, LIST, {}, viewer, { agent });
      made.once('socket', (socket) => socket.once('connect', () => ports.add(socket.localPort)));
      expect((await answerOf(made)).status).toBe(200);
    }
    agent.destroy();
    expect(ports.size).toBe(1);
  });

  it('ends with its deadline', async () => {
    const { operation } = (
      await wire.post('/busbar.v1.VolumeService/CreateVolume', { name: 'v', spec: { sizeBytes: '1048576' } }, admin)
    ).json as { operation: { id: string } };
    const wait = '/busbar.v1.OperationService/WaitOperation';
    const slow = { operation: operation.id, timeoutMs: 600_000 };
    expect(await wire.post(wait, slow, viewer, { headers: { 'busbar-timeout-ms': '300' } })).toMatchObject({
      status: 504,
      json: {
        code: 'DEADLINE_EXCEEDED',
        reason: 'DEADLINE_EXCEEDED',
        message: 'the call did not finish within 300 ms',
      },
    });
    expect(await wire.post(wait, slow, viewer, { headers: { 'busbar-timeout-ms': '5m' } })).toMatchObject({
      status: 400,
      json: { fields: [{ field: 'Busbar-Timeout-Ms', problem: 'is "5m"' }] },
    });
  });

  it('is cancelled when its caller hangs up', async () => {
    let began = false;
    let cancelled = false;
    const services = wire.rig.services.map(({ definition, methods }) => ({
      definition,
      methods: Object.fromEntries(
        Object.entries(methods).map(([key, method]) => [
          key,
          {
            ...method,
            handle: (_request: never, { signal }: Call) =>
              new Promise((_resolve, reject) => {
                began = true;
                signal.addEventListener('abort', () => {
                  cancelled = true;
                  reject(signal.reason as Error);
                });
              }),
          },
        ]),
      ),
    }));
    const edge = edgeServer({
      cluster: 'test',
      services,
      trail: wire.rig.trail,
      admission: wire.rig.admission,
      tls: fixedTls(await serverFiles(ours)),
      clock: systemClock,
      logger: silentLogger,
    });
    const made = openPost(await edge.listen('127.0.0.1:0'), wire.ca, LIST, {}, viewer);
    made.on('error', () => {});
    await expect.poll(() => began, PATIENCE).toBe(true);
    expect(cancelled).toBe(false);
    made.destroy();
    await expect.poll(() => cancelled, PATIENCE).toBe(true);
    edge.close();
  });
});

describe('an error as JSON', () => {
  it('has the words of gRPC', async () => {
    const client = createClient(NetworkServiceDefinition, wire.channel(admin));
    for (const [method, request, code, status] of [
      ['getNetwork', { network: 'nope' }, Status.NOT_FOUND, 404],
      ['createNetwork', { name: 'a b', spec: {} }, Status.INVALID_ARGUMENT, 400],
      ['updateNetwork', { network: 'plant', revision: '1' }, Status.ABORTED, 409],
    ] as const) {
      let trailer = Metadata();
      const call = client[method] as (request: unknown, options: object) => Promise<unknown>;
      const typed = { ...request, ...('revision' in request ? { revision: BigInt(request.revision) } : {}) };
      const error: unknown = await call(typed, { onTrailer: (got: Metadata) => (trailer = got) }).catch(
        (e: unknown) => e,
      );
      expect(error).toBeInstanceOf(ClientError);
      expect((error as ClientError).code).toBe(code);
      const info = ErrorInfo.decode(trailer.get(ERROR_TRAILER) as Uint8Array);
      const path = `/busbar.v1.NetworkService/${method[0]?.toUpperCase()}${method.slice(1)}`;
      const answer = await wire.post(path, request, admin);
      expect(answer.status).toBe(status);
      expect(answer.json).toEqual({ code: Status[code], ...info });
    }
  });

  it.each<[string, string, unknown, object, number, string]>([
    ['a path that is none', '/nope', {}, {}, 404, 'NO_SUCH_RPC'],
    ["the agents' service", '/busbar.agent.v1.AgentService/Session', {}, {}, 404, 'NO_SUCH_RPC'],
    ['GET of a call', LIST, undefined, { method: 'GET' }, 405, 'METHOD_NOT_ALLOWED'],
    ['a form', LIST, {}, { headers: { 'content-type': 'multipart/form-data' } }, 415, 'MEDIA_TYPE_UNSUPPORTED'],
    ['a compressed body', LIST, {}, { headers: { 'content-encoding': 'gzip' } }, 415, 'ENCODING_UNSUPPORTED'],
    ['a page of elsewhere', LIST, {}, { headers: { origin: 'https://evil.example' } }, 403, 'OTHER_ORIGIN'],
    ['the console', '/busbar.v1.VmService/OpenConsole', {}, {}, 501, 'NOT_OVER_HTTP'],
    ['an import', '/busbar.v1.ImageService/ImportImage', {}, {}, 501, 'NOT_OVER_HTTP'],
    ['no body', LIST, '', {}, 400, 'INVALID_REQUEST'],
    ['half of JSON', LIST, '{"pageSize":', {}, 400, 'INVALID_REQUEST'],
    ['another encoding', LIST, Buffer.from([0x7b, 0xff, 0x7d]), {}, 400, 'INVALID_REQUEST'],
    ['a misspelt field', LIST, { pagesize: 1 }, {}, 400, 'INVALID_REQUEST'],
    ['a field of the wrong type', LIST, { pageSize: 'many' }, {}, 400, 'INVALID_REQUEST'],
    ['too long a header', LIST, {}, { headers: { x: 'y'.repeat(20_000) } }, 431, 'HEADER_TOO_LARGE'],
  ])('tells %s', async (_what, path, body, options, status, reason) => {
    const answer = await wire.post(path, body, admin, options);
    expect(answer).toMatchObject({
      status,
      json: { reason, message: expect.stringMatching(/./), hint: expect.stringMatching(/./) },
    });
    expect(Object.keys(answer.json)).toEqual(['code', 'reason', 'message', 'hint', 'fields']);
  });

  it('tells rubbish behind a request by the end of the connection, not in the middle of an answer', async () => {
    const own = { ca: wire.ca, cert: viewer.certificatePem, key: viewer.keyPem };
    const socket = connect({ host: '127.0.0.1', port: wire.edgePort, ...own });
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString())).on('error', () => {});
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write('GET /busbar.v1.NetworkService/WatchNetworks HTTP/1.1\r\nhost: localhost\r\n\r\n');
    await expect.poll(() => text, PATIENCE).toContain('event: progress');
    socket.write('rubbish\r\n\r\n');
    await closed;
    expect(text).not.toContain('NOT_HTTP');
  });

  it('a page of its own may call', async () => {
    const headers = { origin: `https://127.0.0.1:${wire.edgePort}` };
    expect((await wire.post(LIST, {}, viewer, { headers })).status).toBe(200);
  });
});

describe('whoever has no valid certificate is told so in JSON', () => {
  const day = (days: number) => new Date(Date.now() + days * DAY_MS);
  it.each<[string, string, () => Promise<KeyPairPem | null>]>([
    ['none', 'CLIENT_CERTIFICATE_REQUIRED', async () => null],
    ['one that has ended', 'CLIENT_CERTIFICATE_EXPIRED', () => clientCertificate(ours, 'admin', { now: day(-2) })],
    [
      'one of the future',
      'CLIENT_CERTIFICATE_NOT_YET_VALID',
      () => clientCertificate(ours, 'admin', { now: day(0.5) }),
    ],
    [
      'one of another authority',
      'CLIENT_CERTIFICATE_UNKNOWN_AUTHORITY',
      async () => clientCertificate(await newAuthority('theirs'), 'admin'),
    ],
    [
      'one of an authority of the same name',
      'CLIENT_CERTIFICATE_UNKNOWN_AUTHORITY',
      async () => clientCertificate(await newAuthority('ours'), 'admin'),
    ],
    [
      'one of another cluster',
      'CLIENT_CERTIFICATE_REQUIRED',
      () => clientCertificate(ours, 'admin', { cluster: 'other' }),
    ],
  ])('%s: %s', async (_what, reason, own) => {
    for (const path of [LIST, CREATE, '/busbar.v1.VmService/WatchVms']) {
      expect(await wire.post(path, {}, await own())).toMatchObject({
        status: 401,
        json: { code: 'UNAUTHENTICATED', reason, hint: expect.stringMatching(/./), fields: [] },
      });
    }
    expect(await wire.post('/openapi.json', undefined, await own(), { method: 'GET' })).toMatchObject({
      status: 401,
      json: { reason },
    });
  });

  it('and nothing of its body is read', async () => {
    const answer = await wire.post(CREATE, 'x'.repeat(1_000_000), null);
    expect(answer).toMatchObject({ status: 401, headers: { connection: 'close' } });
  });
});

describe('TLS', () => {
  it('is 1.2 at least', async () => {
    const old = { maxVersion: 'TLSv1.1', minVersion: 'TLSv1', ciphers: 'ALL@SECLEVEL=0' } as const;
    await expect(wire.post(LIST, {}, viewer, old)).rejects.toThrow(/alert|protocol/i);
    expect((await wire.post(LIST, {}, viewer, { maxVersion: 'TLSv1.2' })).status).toBe(200);
  });

  it('takes a renewed certificate without a restart', async () => {
    const serial = () =>
      new Promise<string>((resolve, reject) => {
        const made = openPost(wire.edgePort, wire.ca, LIST, {}, viewer);
        made.once('error', reject);
        made.once('response', (response) => {
          resolve((response.socket as TLSSocket).getPeerCertificate().serialNumber);
          response.resume();
        });
      });
    const before = await serial();
    wire.setTls(await serverFiles(ours));
    expect(await serial()).not.toBe(before);
  });
});

describe('/openapi.json', () => {
  it('names exactly the calls that are served', async () => {
    const { json } = await wire.post('/openapi.json', undefined, viewer, { method: 'GET' });
    const served = wire.rig.services.flatMap(({ definition }) =>
      Object.values(definition.methods)
        .filter((rpc) => !rpc.requestStream)
        .map((rpc) => `/${definition.fullName}/${rpc.name}`),
    );
    expect(Object.keys(json.paths as object).toSorted()).toEqual(served.toSorted());
  });

  it('is valid OpenAPI 3.1', async () => {
    const { Validator } = await import('@seriousme/openapi-schema-validator');
    const { text } = await wire.post('/openapi.json', undefined, viewer, { method: 'GET' });
    const validator = new Validator();
    expect(await validator.validate(JSON.parse(text) as Record<string, unknown>)).toEqual({ valid: true });
    expect(validator.version).toBe('3.1');
    const broken = JSON.parse(text) as { paths: Record<string, unknown> };
    broken.paths['/x'] = { post: { responses: 7 } };
    expect(await new Validator().validate(broken)).toMatchObject({ valid: false });
  });
});
