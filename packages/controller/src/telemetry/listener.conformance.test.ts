// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { request } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { type ConnectionOptions, connect } from 'node:tls';
import { silentLogger } from '@busbar/core/log';
import { gauge } from '@busbar/core/metrics';
import { createAuthority, issue, type KeyPairPem, openAuthority } from '@busbar/pki/authority';
import { identityUri } from '@busbar/pki/identity';
import { type Role, roleUri } from '@busbar/pki/role';
import type { Check } from '@busbar/telemetry/health';
import { type MetricsListener, metricsListener } from '@busbar/telemetry/listener';
import { metricsRegistry } from '@busbar/telemetry/registry';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Controller } from '../controller.ts';
import { ADMIT_ALL } from '../testing/callers.ts';
import { controllerListener } from './listener.ts';

/** Real TLS on a real socket: what a scraper, a probe and a stranger get. */
const now = new Date();
const dns = ['localhost'];
const usages = ['serverAuth', 'clientAuth'] as const;
const client = (cluster: string, role: Role) => [
  identityUri({ kind: 'client', cluster, client: 'prometheus' }),
  roleUri(cluster, role),
];

interface Ca {
  readonly pem: string;
  issue(uris: readonly string[]): Promise<KeyPairPem>;
}
async function newCa(commonName: string): Promise<Ca> {
  const stored = await createAuthority({ commonName, now, validDays: 30 });
  const opened = await openAuthority(stored);
  return {
    pem: stored.certificatePem,
    issue: (uris) =>
      issue(opened, {
        commonName: 'x',
        now,
        validDays: 10,
        dns,
        ips: ['127.0.0.1'],
        uris: [...uris],
        usages: [...usages],
      }),
  };
}

let ours: Ca;
let theirs: Ca;
let server: KeyPairPem;
beforeAll(async () => {
  [ours, theirs] = await Promise.all([newCa('ours'), newCa('theirs')]);
  server = await ours.issue([identityUri({ kind: 'controller', cluster: 'lab', host: 'host1' })]);
});

let listener: MetricsListener;
let port: number;
let live: readonly Check[];
let ready: () => Promise<readonly Check[]>;
const tlsOf = (pair: KeyPairPem) => ({
  ca: Buffer.from(ours.pem),
  certificate: Buffer.from(pair.certificatePem),
  key: Buffer.from(pair.keyPem),
});
async function open(): Promise<void> {
  live = [{ name: 'loop', problem: '' }];
  ready = async () => [{ name: 'store', problem: '' }];
  const registry = metricsRegistry();
  registry.read(gauge('test_answer', 'The answer.', []), () => [{ labels: {}, value: 42 }]);
  const controller = {
    health: { live: () => live, ready: () => ready() },
    admission: ADMIT_ALL,
  } as unknown as Controller;
  listener = controllerListener({ cluster: 'lab', tls: tlsOf(server), registry, controller, logger: silentLogger });
  port = await listener.listen('127.0.0.1:0');
}
afterEach(() => listener.close());

function get(path: string, pair?: KeyPairPem, method = 'GET'): Promise<{ status: number; body: string; type: string }> {
  return new Promise((resolve, reject) => {
    const identity = pair === undefined ? {} : { cert: pair.certificatePem, key: pair.keyPem };
    const call = request(
      { host: 'localhost', port, path, method, ca: ours.pem, agent: false, ...identity },
      (answer) => {
        let body = '';
        answer.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        answer.on('end', () =>
          resolve({ status: answer.statusCode ?? 0, body, type: answer.headers['content-type'] ?? '' }),
        );
      },
    );
    call.on('error', reject);
    call.end();
  });
}

describe('/metrics', () => {
  it.each(['viewer', 'operator', 'admin'] as const)('is shown to a client of role %s', async (role) => {
    await open();
    const answer = await get('/metrics', await ours.issue(client('lab', role)));
    expect(answer).toMatchObject({ status: 200, type: 'text/plain; version=0.0.4; charset=utf-8' });
    expect(answer.body).toContain('\ntest_answer 42\n');
  });

  it('is not shown without a certificate, nor with one of another authority', async () => {
    await open();
    expect(await get('/metrics')).toMatchObject({
      status: 401,
      body: 'a client certificate of this cluster is needed\n',
    });
    const foreign = await get('/metrics', await theirs.issue(client('lab', 'admin'))).catch((error: Error) => error);
    if (!(foreign instanceof Error)) expect(foreign.status).toBe(401);
  });

  it.each([
    ['of a host', [identityUri({ kind: 'host', cluster: 'lab', host: 'host1' })]],
    ['of another cluster', client('other', 'admin')],
    ['without a role', client('lab', 'admin').slice(0, 1)],
    ['without a name', []],
  ])('is not shown for a certificate %s', async (_what, uris) => {
    await open();
    expect((await get('/metrics', await ours.issue(uris))).status).toBe(403);
  });

  it('is not shown to a resumed session, which would bring no certificate', async () => {
    await open();
    const pair = await ours.issue(client('lab', 'viewer'));
    const options: ConnectionOptions = {
      host: '127.0.0.1',
      port,
      servername: 'localhost',
      ca: ours.pem,
      cert: pair.certificatePem,
      key: pair.keyPem,
    };
    const scrape = async (session?: Buffer) => {
      const socket = connect({
        ...options,
        ...(session === undefined ? {} : { session, cert: undefined, key: undefined }),
      });
      let ticket: Buffer | undefined;
      socket.on('session', (given) => {
        ticket = given;
      });
      await once(socket, 'secureConnect');
      const reused = socket.isSessionReused();
      socket.write('GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
      const chunks: Buffer[] = [];
      for await (const chunk of socket) chunks.push(chunk as Buffer);
      return { text: Buffer.concat(chunks).toString(), ticket, reused };
    };
    const first = await scrape();
    expect(first.text).toContain('HTTP/1.1 200');
    const second = await scrape(first.ticket);
    expect(second.reused).toBe(false);
    expect(second.text).toContain('HTTP/1.1 401');
  });
});

describe('/healthz and /readyz', () => {
  it('answer without a certificate: 200 while all is well', async () => {
    await open();
    expect(await get('/healthz')).toEqual({
      status: 200,
      type: 'application/json',
      body: '{"ok":true,"checks":[{"name":"loop","ok":true}]}\n',
    });
    expect((await get('/readyz')).status).toBe(200);
    expect(await get('/readyz', undefined, 'HEAD')).toMatchObject({ status: 200, body: '' });
  });

  it('503 with the reason when something is not', async () => {
    await open();
    live = [
      { name: 'loop', problem: 'has not gone round for 60 s' },
      { name: 'other', problem: '' },
    ];
    ready = async () => [{ name: 'store', problem: 'x'.repeat(1000) }];
    const answer = await get('/healthz');
    expect(answer.status).toBe(503);
    expect(JSON.parse(answer.body)).toEqual({
      ok: false,
      checks: [
        { name: 'loop', ok: false, problem: 'has not gone round for 60 s' },
        { name: 'other', ok: true },
      ],
    });
    expect((await get('/readyz')).body.length).toBeLessThan(400);
  });

  it('500 without details when the question itself fails', async () => {
    await open();
    ready = () => Promise.reject(new Error('secret'));
    expect(await get('/readyz')).toMatchObject({ status: 500, body: 'internal error; the log says more\n' });
  });
});

describe('the listener', () => {
  it('answers nothing else', async () => {
    await open();
    expect((await get('/')).status).toBe(404);
    expect((await get('/metrics/../etc')).status).toBe(404);
    expect((await get('/metrics', undefined, 'POST')).status).toBe(405);
  });

  it('uses another certificate from the next connection on', async () => {
    await open();
    const renewed = await ours.issue([identityUri({ kind: 'controller', cluster: 'lab', host: 'host1' })]);
    const serial = async () => {
      const socket = connect({ host: '127.0.0.1', port, servername: 'localhost', ca: ours.pem });
      await once(socket, 'secureConnect');
      const { serialNumber } = socket.getPeerCertificate();
      socket.destroy();
      return serialNumber;
    };
    const before = await serial();
    listener.setTls(tlsOf(renewed));
    expect(await serial()).not.toBe(before);
  });

  it('ends a connection that says nothing, and takes so many and no more', { timeout: 20_000 }, async () => {
    await open();
    const idle = Array.from({ length: 80 }, () => connectTcp({ host: '127.0.0.1', port }));
    const ended = idle.map((socket) => {
      socket.on('error', () => {});
      return once(socket, 'close');
    });
    // Those beyond the limit at once.
    await Promise.race(ended);
    // The others when the handshake is overdue; then there is room again.
    await Promise.all(ended);
    expect((await get('/healthz')).status).toBe(200);
  });

  it('tells when its address cannot be had, and tries again', { timeout: 20_000 }, async () => {
    await open();
    const second = metricsListener({
      tls: tlsOf(server),
      registry: metricsRegistry(),
      health: { live: () => [], ready: () => Promise.resolve([]) },
      mayRead: () => false,
      logger: silentLogger,
    });
    await expect(second.listen(`127.0.0.1:${port}`)).rejects.toMatchObject({ code: 'EADDRINUSE' });
    // And has it once it is free.
    second.serve(`127.0.0.1:${port}`);
    listener.close();
    const answers = () =>
      get('/healthz').then(
        ({ status }) => status,
        () => 0,
      );
    await expect.poll(answers, { timeout: 15_000, interval: 250 }).toBe(200);
    second.close();
  });
});
