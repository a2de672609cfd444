// SPDX-License-Identifier: Apache-2.0
/** Whom a joining host believes. Each server here is a real one, and counts what it was told. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { createServer as createTcpServer, type Server as TcpServer } from 'node:net';
import { type Authority, createAuthority, issue, type KeyPairPem, openAuthority } from '@busbar/pki/authority';
import { spkiPin } from '@busbar/pki/csr';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { checkController } from '../api/open.ts';
import { PinError, postPinned } from './pinned.ts';

const now = new Date();
const CONTROLLER = 'spiffe://lab/controller/host1';
let ours: Authority;
let theirs: Authority;
let pin: string;
const servers: (Server | TcpServer)[] = [];
let told: string[];

const authority = async (commonName: string) => openAuthority(await createAuthority({ commonName, now, validDays: 2 }));
const leaf = (by: Authority, more: object = {}) =>
  issue(by, {
    commonName: 'host1',
    now,
    validDays: 1,
    ips: ['127.0.0.1'],
    uris: [CONTROLLER],
    usages: ['serverAuth', 'clientAuth'],
    ...more,
  });

beforeAll(async () => {
  // The same name: nothing but the key tells them apart.
  [ours, theirs] = [await authority('the CA'), await authority('the CA')];
  pin = spkiPin(ours.certificatePem);
});
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

async function listening(server: Server | TcpServer): Promise<string> {
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** As the JSON edge does it: `ca` is what clients are asked for. */
function edge(own: KeyPairPem, chain: string, ca?: string, answer = '{"ok":true}'): Promise<string> {
  told = [];
  const options = {
    cert: own.certificatePem + chain,
    key: own.keyPem,
    ca,
    requestCert: true,
    rejectUnauthorized: false,
  };
  const server = createServer(options, (request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString();
    });
    request.on('end', () => {
      told.push(body);
      response.end(answer);
    });
  });
  server.on('tlsClientError', () => {});
  return listening(server);
}
const send = (address: string) => postPinned({ address, pin, path: '/x' }, '{"secret":"s3"}', checkController);

describe('the pinned authority', () => {
  test.each<[string, () => [string, string | undefined]]>([
    ['sent with the chain', () => [ours.certificatePem, undefined]],
    ['sent because the server asks for clients of it', () => ['', ours.certificatePem]],
  ])('%s is believed', async (_name, how) => {
    expect(await send(await edge(await leaf(ours), ...how()))).toEqual({ status: 200, body: '{"ok":true}' });
    expect(told).toEqual(['{"secret":"s3"}']);
  });

  test.each<[string, () => Promise<[KeyPairPem, string]>]>([
    ['another authority of the same name', async () => [await leaf(theirs), theirs.certificatePem]],
    ['another authority, with the pinned certificate attached', async () => [await leaf(theirs), ours.certificatePem]],
    [
      'another authority, with both attached',
      async () => [await leaf(theirs), theirs.certificatePem + ours.certificatePem],
    ],
    ['nothing of the authority', async () => [await leaf(ours), '']],
    ['a self-signed certificate', async () => [await createAuthority({ commonName: 'host1', now, validDays: 1 }), '']],
    [
      'a self-signed certificate, with the pinned one attached',
      async () => [await createAuthority({ commonName: 'the CA', now, validDays: 1 }), ours.certificatePem],
    ],
    [
      'a certificate of a mere host',
      async () => [await leaf(ours, { uris: ['spiffe://lab/host/host1'] }), ours.certificatePem],
    ],
    [
      'a certificate of a client',
      async () => [await leaf(ours, { uris: [CONTROLLER.replace('controller', 'client')] }), ours.certificatePem],
    ],
    ['a certificate for another address', async () => [await leaf(ours, { ips: ['127.0.0.2'] }), ours.certificatePem]],
    [
      'a certificate that is for clients only',
      async () => [await leaf(ours, { usages: ['clientAuth'] }), ours.certificatePem],
    ],
    [
      'a certificate that has ended',
      async () => [await leaf(ours, { now: new Date(now.getTime() - 2 * 86_400_000) }), ours.certificatePem],
    ],
  ])('is not believed of who shows %s, and the secret stays here', async (_name, make) => {
    const [own, chain] = await make();
    const error = await send(await edge(own, chain)).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(PinError);
    expect(told).toEqual([]);
  });

  test('is not found where nobody speaks TLS', async () => {
    const address = await listening(createTcpServer((socket) => socket.end('HTTP/1.1 400 no\r\n\r\n')));
    await expect(send(address)).rejects.toThrow();
  });

  test('an answer without end is cut off', async () => {
    await expect(
      send(await edge(await leaf(ours), ours.certificatePem, undefined, 'x'.repeat(2 * 1024 ** 2))),
    ).rejects.toThrow('its answer is too long');
  });

  test('an interruption ends it at once', async () => {
    const silent = await listening(createTcpServer(() => {}));
    const stop = new AbortController();
    const sending = postPinned({ address: silent, pin, path: '/x' }, '{}', checkController, stop.signal);
    stop.abort(new Error('interrupted'));
    await expect(sending).rejects.toThrow('interrupted');
  });
});
