// SPDX-License-Identifier: Apache-2.0
/** Who is served over HTTPS: requests by the cluster's own names, and certificates for as long as they count. */
import { X509Certificate } from 'node:crypto';
import { connect } from 'node:tls';
import type { KeyPairPem } from '@busbar/pki/authority';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { DAY_MS, newAuthority, startWire, type Wire } from '../testing/wire.ts';

/** For a machine that is busy with other things. */
const PATIENCE = { timeout: 15_000 };
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });
const LIST = '/busbar.v1.VmService/ListVms';
let wire: Wire;
let admin: KeyPairPem;
let viewer: KeyPairPem;
beforeAll(async () => {
  wire = await startWire(await newAuthority('ours'));
  [admin, viewer] = [await wire.client('admin'), await wire.client('viewer')];
});
afterAll(() => wire.stop());

describe('a request', () => {
  const port = () => wire.edgePort;
  it.each<[string, string, Record<string, string>, number, string]>([
    ['by a stranger’s name', LIST, { host: 'evil.example' }, 421, 'OTHER_HOST'],
    ['by a stranger’s name with our port', LIST, { host: 'evil.example:PORT' }, 421, 'OTHER_HOST'],
    [
      'of a page that was made to point here',
      LIST,
      { host: 'evil.example:PORT', origin: 'https://evil.example:PORT' },
      421,
      'OTHER_HOST',
    ],
    [
      'of a stranger’s page',
      LIST,
      { host: 'localhost:PORT', origin: 'https://evil.example:PORT' },
      403,
      'OTHER_ORIGIN',
    ],
    [
      'of another server’s page on this host',
      LIST,
      { host: 'localhost:PORT', origin: 'https://localhost:8443' },
      403,
      'OTHER_ORIGIN',
    ],
    ['of a file', LIST, { host: 'localhost:PORT', origin: 'null' }, 403, 'OTHER_ORIGIN'],
    ['with a whole URL of a stranger', `https://evil.example${LIST}`, { host: 'localhost:PORT' }, 421, 'OTHER_HOST'],
  ])('%s is refused', async (_name, path, given, status, reason) => {
    const headers = Object.fromEntries(
      Object.entries(given).map(([key, value]) => [key, value.replace('PORT', String(port()))]),
    );
    const answer = await wire.post(path, {}, admin, { headers, servername: 'localhost' });
    expect(answer).toMatchObject({ status, json: { reason, code: 'PERMISSION_DENIED' } });
  });

  it('by the edge’s own names is answered, also from its own page', async () => {
    for (const host of [`localhost:${port()}`, `127.0.0.1:${port()}`, 'LOCALHOST'])
      expect((await wire.post(LIST, {}, viewer, { headers: { host } })).status).toBe(200);
    const headers = { host: `localhost:${port()}`, origin: `https://127.0.0.1:${port()}` };
    expect((await wire.post(LIST, {}, viewer, { headers })).status).toBe(200);
  });
});

describe('a certificate that does not count any more', () => {
  const revoke = async (own: KeyPairPem) => {
    const { serialNumber: serial } = new X509Certificate(own.certificatePem);
    const answer = await wire.post(
      '/busbar.v1.CertificateService/RevokeCertificate',
      { serial, unrecorded: true },
      admin,
    );
    expect(answer.status).toBe(200);
  };
  const opened = (own: KeyPairPem) => {
    const socket = connect({
      ...{ host: '127.0.0.1', port: wire.edgePort, servername: 'localhost' },
      ...{ ca: wire.ca, cert: own.certificatePem, key: own.keyPem },
    });
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString())).on('error', () => {});
    return { socket, text: () => text, closed: new Promise<void>((resolve) => socket.once('close', () => resolve())) };
  };
  const WATCH = 'GET /busbar.v1.NetworkService/WatchNetworks HTTP/1.1\r\nhost: localhost\r\n\r\n';

  it.each<[string, (own: KeyPairPem) => void | Promise<void>]>([
    ['CERTIFICATE_REVOKED', revoke],
    ['CERTIFICATE_EXPIRED', () => wire.rig.clock.jumpWall(DAY_MS + 60_000)],
  ])('ends the stream and the connection: %s', async (reason, end) => {
    const own = await wire.client('viewer', `v${reason.slice(-3).toLowerCase()}`);
    const [watching, idle] = [opened(own), opened(own)];
    watching.socket.write(WATCH);
    await expect.poll(watching.text, PATIENCE).toContain('event: progress');
    await end(own);
    await Promise.all([watching.closed, idle.closed]);
    expect(watching.text()).toMatch(new RegExp(`event: failure\\ndata: .*"reason":"${reason}"`));
    wire.rig.clock.jumpWall(reason === 'CERTIFICATE_EXPIRED' ? -DAY_MS - 60_000 : 0);
  });

  it('opens neither a call nor the description of the calls, and is told why before it is hung up on', async () => {
    const own = await wire.client('viewer', 'late');
    await revoke(own);
    for (const [path, body, method] of [
      [LIST, {}, 'POST'],
      ['/openapi.json', undefined, 'GET'],
    ] as const)
      expect(await wire.post(path, body, own, { method })).toMatchObject({
        status: 401,
        json: { reason: 'CERTIFICATE_REVOKED' },
      });
    const silent = opened(own);
    await silent.closed;
  });
});
