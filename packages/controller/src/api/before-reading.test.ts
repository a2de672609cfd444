// SPDX-License-Identifier: Apache-2.0
import { type ClientHttp2Session, connect as http2, type IncomingHttpHeaders } from 'node:http2';
import { connect as tls } from 'node:tls';
import type { Authority, KeyPairPem } from '@busbar/pki/authority';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { CreateNetworkRequest } from '@busbar/proto/gen/busbar/v1/network';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { newAuthority, startWire, type Wire } from '../testing/wire.ts';
import { ERROR_TRAILER } from './status.ts';

/** Who may call, and how large a request may be, is answered while the request is still on its way: these never finish theirs. */
let ours: Authority;
let wire: Wire;
let admin: KeyPairPem;
let viewer: KeyPairPem;

beforeAll(async () => {
  ours = await newAuthority('ours');
  wire = await startWire(ours);
  [admin, viewer] = [await wire.client('admin'), await wire.client('viewer')];
});
afterAll(() => wire.stop());

vi.setConfig({ testTimeout: 60_000 });
const GRPC = '/busbar.v1.VmService/CreateVm';

/** Sends this, and nothing more, to the edge; the answer's status and reason. */
function said(text: string, own: KeyPairPem | null): Promise<string> {
  return new Promise((resolve, reject) => {
    const trust = own === null ? {} : { cert: own.certificatePem, key: own.keyPem };
    const socket = tls({ host: '127.0.0.1', port: wire.edgePort, ca: wire.ca, ...trust }, () => socket.write(text));
    let answer = '';
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString();
      const reason = /"reason":"([A-Z_]+)"/.exec(answer)?.[1];
      if (reason === undefined) return;
      socket.destroy();
      resolve(`${answer.slice(9, 12)} ${reason}`);
    });
    socket.once('error', reject);
    socket.once('close', () => resolve(`closed: ${answer}`));
  });
}

const half = (path: string, bytes: number) =>
  `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${bytes}\r\n\r\n{`;

/** Sends the beginning of a gRPC message that is announced to have `bytes`; status, reason and text of the answer. */
function begun(session: ClientHttp2Session, path: string, bytes: number, content = Buffer.alloc(1)): Promise<string> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const onHeaders = (headers: IncomingHttpHeaders) => {
      if (headers['grpc-status'] === undefined) return;
      const info = headers[ERROR_TRAILER];
      const reason = info === undefined ? '' : ErrorInfo.decode(Buffer.from(String(info), 'base64')).reason;
      resolve(
        `${String(headers['grpc-status'])} ${reason} ${decodeURIComponent(String(headers['grpc-message'] ?? ''))}`,
      );
    };
    stream.on('response', onHeaders).on('trailers', onHeaders).once('error', reject).resume();
    const head = Buffer.alloc(5);
    head.writeUInt32BE(bytes, 1);
    stream.write(Buffer.concat([head, content]));
  });
}

async function withSession<T>(own: KeyPairPem, use: (session: ClientHttp2Session) => Promise<T>): Promise<T> {
  const session = http2(`https://localhost:${wire.grpcPort}`, {
    ca: wire.ca,
    cert: own.certificatePem,
    key: own.keyPem,
  });
  session.on('error', () => {});
  try {
    return await use(session);
  } finally {
    session.destroy();
  }
}

describe('whose request is still on its way', () => {
  it('is refused when it may not call, over HTTPS', async () => {
    expect(await said(half(GRPC, 60_000), viewer)).toBe('403 ROLE_TOO_LOW');
    expect(await said(half(GRPC, 60_000), null)).toBe('401 CLIENT_CERTIFICATE_REQUIRED');
  });

  it('is refused when it may not call, over gRPC', async () => {
    expect(await withSession(viewer, (session) => begun(session, GRPC, 60_000))).toMatch(
      /^7 ROLE_TOO_LOW ROLE_TOO_LOW: /,
    );
    const session = '/busbar.agent.v1.AgentService/Session';
    expect(await withSession(admin, (one) => begun(one, session, 60_000))).toMatch(/^7 HOST_CERTIFICATE_REQUIRED/);
  });

  it('is refused by its length, by what the method takes, over HTTPS', async () => {
    expect(await said(half('/busbar.v1.VmService/ListVms', 65_537), viewer)).toBe('413 REQUEST_TOO_LARGE');
    expect(await said(half('/busbar.v1.JoinService/Join', 65_537), null)).toBe('413 REQUEST_TOO_LARGE');
    expect(await said(half(GRPC, 4_000_000), admin)).toBe('413 REQUEST_TOO_LARGE');
  });

  it('is refused by its length, by what the method takes, over gRPC', async () => {
    await withSession(admin, async (session) => {
      const list = '/busbar.v1.VmService/ListVms';
      expect(await begun(session, list, 65_537)).toMatch(/^8 {2}REQUEST_TOO_LARGE: .* 65536 bytes/);
      expect(await begun(session, GRPC, 4_000_000)).toMatch(/^8 {2}REQUEST_TOO_LARGE/);
      expect(await begun(session, '/grpc.health.v1.Health/Check', 5_000)).toMatch(/^8 .*larger than max/);
    });
  });

  it('takes no place of those who join when it is too long to be read', async () => {
    const path = '/busbar.v1.JoinService/Join';
    const long = Array.from({ length: 8 }, () => said(half(path, 65_537), null));
    expect(new Set(await Promise.all(long))).toEqual(new Set(['413 REQUEST_TOO_LARGE']));
  });

  it('holds a place of those who join, of which an address has two', async () => {
    const path = '/busbar.v1.JoinService/Join';
    const slow = Array.from({ length: 2 }, () => {
      const socket = tls({ host: '127.0.0.1', port: wire.edgePort, ca: wire.ca }, () =>
        socket.write(half(path, 60_000)),
      );
      return socket.on('error', () => {});
    });
    // Until both have come in, the third is one of two that do.
    await expect
      .poll(() => said(half(path, 60_000).replace('{', '[]').replace('60000', '2'), null), { timeout: 20_000 })
      .toBe('503 JOIN_BUSY');
    for (const socket of slow) socket.destroy();
    await expect
      .poll(() => said(half(path, 2).replace(/\{$/, '{}'), null), { timeout: 20_000 })
      .toBe('400 INVALID_REQUEST');
  });
});

describe('a request that is no message', () => {
  it('is a mistake of the caller, over gRPC', async () => {
    await withSession(admin, async (session) => {
      for (const content of [Buffer.from([0x0a, 0x7f]), Buffer.from([0x00]), Buffer.from([0x0c])]) {
        const answer = await begun(session, GRPC, content.length, content);
        expect(answer).toMatch(/^3 INVALID_REQUEST .*the request is no protobuf message/);
      }
    });
  });

  it('with a label that an object would drop is refused on both transports', async () => {
    const encoded = CreateNetworkRequest.encode(CreateNetworkRequest.fromPartial({ name: 'n' })).finish();
    const label = Buffer.from('\x12\x0e\x0a\x09__proto__\x12\x01x');
    const content = Buffer.concat([encoded, label]);
    const path = '/busbar.v1.NetworkService/CreateNetwork';
    const answer = await withSession(admin, (session) => begun(session, path, content.length, content));
    expect(answer).toMatch(/^3 INVALID_REQUEST .*labels has the key "__proto__"/);
    const json = await wire.post(path, '{"name":"n","labels":{"__proto__":"x"}}', admin);
    expect(json).toMatchObject({
      status: 400,
      json: { reason: 'INVALID_REQUEST', fields: [{ field: 'labels', problem: 'has the key "__proto__"' }] },
    });
  });

  it('with a text that shows another one is refused', async () => {
    const path = '/busbar.v1.NetworkService/CreateNetwork';
    for (const character of ['\u202e', '\u2066', '\u200f', '\u061c', '\u200b', '\ufeff', '\u2028', '\u{e0041}']) {
      const labels = { site: `a${character}b` };
      const answer = await wire.post(path, { name: 'n', labels, spec: {} }, admin);
      expect(answer.json).toMatchObject({ reason: 'INVALID_REQUEST' });
      const [{ field, problem } = { field: '', problem: '' }] = answer.json.fields as {
        field: string;
        problem: string;
      }[];
      expect([field, problem]).toEqual(['labels.site', expect.stringMatching(/^is "a\\u[0-9a-f]{4}/)]);
    }
    expect(
      (await wire.post(path, { name: 'n', labels: { site: 'Nordré 北 😀' }, validateOnly: true }, admin)).text,
    ).not.toContain('labels');
  });
});

describe('the first line of a request', () => {
  const target = (text: string) => said(`GET ${text} HTTP/1.1\r\nhost: localhost\r\n\r\n`, null);

  it.each(['http://[', 'http://', '//[', 'http://a:b/', 'https://%/'])(
    'that is for %s is a mistake of the caller',
    async (text) => {
      expect(await target(text)).toBe('400 NOT_HTTP');
    },
  );

  it('never breaks the edge', async () => {
    const ascii = fc.string({
      unit: fc.integer({ min: 0x21, max: 0xff }).map((code) => String.fromCharCode(code)),
      maxLength: 40,
    });
    const url = fc.tuple(fc.constantFrom('/', '//', 'http:', 'http://', 'https://[', '*', '?', '#', '\\', '/%'), ascii);
    await fc.assert(
      fc.asyncProperty(fc.constantFrom('GET', 'POST', 'OPTIONS', 'HEAD', 'PUT'), url, async (method, [start, rest]) => {
        const answer = await said(
          `${method} ${start}${rest} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n`,
          null,
        );
        // HEAD has no body, so no reason.
        if (method !== 'HEAD') expect(answer).toMatch(/^4\d\d [A-Z_]+$/);
        else expect(answer).toMatch(/^closed: HTTP\/1.1 4\d\d|^4/);
      }),
      { numRuns: 60 },
    );
  });
});
