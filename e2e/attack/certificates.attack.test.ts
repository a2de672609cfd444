// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { hostRoot } from '@busbar/deploy/lab/paths';
import { openAuthority } from '@busbar/pki/authority';
import { createRequest, readRequest } from '@busbar/pki/csr';
import { AUTHORITIES_FILE } from '@busbar/pki/files';
import { parseJoinToken } from '@busbar/pki/join-token';
import { issueFor } from '@busbar/pki/purpose';
import { openSeal } from '@busbar/pki/seal';
import { authorityContext, parseSealedAuthorities } from '@busbar/pki/sealed-authorities';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { callGrpc } from './knock.ts';
import { addressOf, busbar, clientOf, eventually, json, type KeyPair, LAB, post, VOTELESS, VOTERS } from './lab.ts';

/**
 * Goal: who took a certificate, lies about an address or makes a browser call is stopped by every voter.
 * Method: what a thief does with real keys at the real ports. The short certificate of the third test is made with the lab's
 * own authority, which root on a voter can open; the API issues days.
 */
const LIST = '/busbar.v1.VmService/ListVms';
const RENEW = '/busbar.v1.CertificateService/RenewCertificate';
const JOIN = '/busbar.v1.JoinService/Join';
const [GRPC_PORT, EDGE_PORT] = [7800, 7801];
/** gRPC's UNAUTHENTICATED. */
const UNAUTHENTICATED = '16';
const SIDE = [
  '/grpc.health.v1.Health/Check',
  '/grpc.health.v1.Health/Watch',
  '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
];
const serialOf = ({ cert }: KeyPair) => new X509Certificate(cert).serialNumber.toLowerCase();
const reasonOf = (answer: { readonly body: string } | null) =>
  answer === null ? 'no answer' : ((JSON.parse(answer.body) as { reason?: string }).reason ?? 'OK');

let directory: string;
let addresses: readonly string[];
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'busbar-attack-'));
  addresses = await Promise.all(VOTERS.map(addressOf));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function issued(client: string): Promise<KeyPair> {
  const made = await busbar(['certificate', 'issue', client, '--role', 'operator', '--dir', join(directory, client)]);
  expect(made.code, made.stderr).toBe(0);
  const file = (ending: string) => readFileSync(join(directory, client, `${client}.${ending}`));
  return { cert: file('crt'), key: file('key') };
}

async function renewed(
  by: KeyPair,
  address: string,
): Promise<{ readonly reason: string; readonly pair: KeyPair | null }> {
  const { csrPem, keyPem } = await createRequest('thief');
  const answer = await post(address, RENEW, JSON.stringify({ csrPem }), { as: by });
  if (answer?.status !== 200) return { reason: reasonOf(answer), pair: null };
  const { certificate } = JSON.parse(answer.body) as { certificate: { certificatePem: string } };
  return { reason: 'OK', pair: { cert: Buffer.from(certificate.certificatePem), key: Buffer.from(keyPem) } };
}

/** An HTTP/2 connection with a stream that its service would keep open for ever; tells when it is gone. */
function held(address: string, pair: KeyPair) {
  const session = connectHttp2(`https://${address}:${GRPC_PORT}`, { ...pair, rejectUnauthorized: false });
  session.on('error', () => {});
  const headers = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' };
  const stream = session.request({ ...headers, ':path': '/grpc.health.v1.Health/Watch' });
  stream.on('error', () => {}).resume();
  stream.end(Buffer.alloc(5));
  const answered = new Promise((resolve) => stream.once('data', resolve));
  return { session, answered };
}

describe('a stolen client certificate', () => {
  let owner: KeyPair;
  const copies: KeyPair[] = [];

  it('has one successor: the thief gets one line and no second one', async () => {
    owner = await issued('anna');
    for (const [index, address] of addresses.entries()) {
      const { reason, pair } = await renewed(copies.at(-1) ?? owner, address);
      expect(reason).toBe('OK');
      copies.push(pair as KeyPair);
      expect(reasonOf(await post(address, LIST, '{}', { as: copies[index] as KeyPair }))).toBe('OK');
    }
    // Written down by the controller that saw it, beside the call.
    await eventually('the first copy to be known as used', 10_000, async () =>
      (await renewed(owner, addresses[0] as string)).reason === 'CERTIFICATE_RENEWED' ? true : null,
    );
  });

  it('a revoked client is cut off on every voter, with every copy it has made', async () => {
    const all = [owner, ...copies];
    const open = addresses.flatMap((address) => all.map((pair) => held(address, pair)));
    await Promise.all(open.map(({ answered }) => answered));
    const revoked = await busbar(['certificate', 'revoke', serialOf(owner), '--reason', 'stolen']);
    expect(revoked.code, revoked.stderr).toBe(0);
    for (const copy of copies) expect(revoked.stdout).toContain(serialOf(copy));
    await eventually('every connection of theirs to be closed', 10_000, async () =>
      open.every(({ session }) => session.destroyed) ? true : null,
    );
    for (const address of addresses)
      for (const pair of all) {
        expect(reasonOf(await post(address, LIST, '{}', { as: pair }))).toBe('CERTIFICATE_REVOKED');
        expect((await renewed(pair, address)).reason).toBe('CERTIFICATE_REVOKED');
      }
    for (const address of addresses)
      for (const path of SIDE) expect(await callGrpc(address, GRPC_PORT, owner, path), path).toBe(UNAUTHENTICATED);
    expect(reasonOf(await post(addresses[0] as string, LIST, '{}', { as: clientOf('viewer') }))).toBe('OK');
  });
});

describe('a certificate of half a minute', () => {
  /** Its handshakes and the first events of a watch, on a machine that is busy. */
  const LIFE_MS = 30_000;
  const SKEW_MS = 5_000;

  async function short(): Promise<KeyPair & { readonly notAfter: Date }> {
    const file = (name: string) => readFileSync(hostRoot(LAB, VOTERS[0], `/etc/busbar/pki/${name}`));
    const sealed = parseSealedAuthorities(file(AUTHORITIES_FILE).toString(), AUTHORITIES_FILE);
    const ca = sealed.authorities.find(({ name }) => name === 'ca');
    if (ca === undefined) throw new Error('the lab has no authority');
    const keyPem = openSeal(file('seal.key')).open(ca.sealedKey, authorityContext('ca'));
    const own = await createRequest('short');
    const made = await issueFor(await openAuthority({ certificatePem: ca.certificatePem, keyPem: keyPem.toString() }), {
      cluster: LAB,
      purpose: 'client',
      holder: { kind: 'client', name: 'short', role: 'viewer' },
      publicKey: await readRequest(own.csrPem),
      now: new Date(),
      validDays: LIFE_MS / 86_400_000,
    });
    return { cert: Buffer.from(made.certificatePem), key: Buffer.from(own.keyPem), notAfter: made.notAfter };
  }

  it('takes its watch along when it ends', async () => {
    const { notAfter, ...pair } = await short();
    const address = addresses[0] as string;
    const socket = connectTls({ host: address, port: EDGE_PORT, ...pair, rejectUnauthorized: false });
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString())).on('error', () => {});
    const closed = new Promise<number>((resolve) => socket.once('close', () => resolve(Date.now())));
    socket.write(`GET /busbar.v1.NetworkService/WatchNetworks HTTP/1.1\r\nhost: ${address}\r\n\r\n`);
    await eventually('the watch to begin', LIFE_MS, async () => (text.includes('event: progress') ? true : null));
    const atMs = await closed;
    expect(text).toMatch(/event: failure\ndata: .*CERTIFICATE_EXPIRED/);
    expect(atMs).toBeGreaterThanOrEqual(notAfter.getTime());
    expect(atMs).toBeLessThan(notAfter.getTime() + SKEW_MS);
  });
});

describe('a page of elsewhere, in the browser of an admin', () => {
  it.each([
    [
      'that names itself in both',
      { host: 'evil.example:7801', origin: 'https://evil.example:7801' },
      421,
      'OTHER_HOST',
    ],
    ['that was pointed here and asks like its own server', { host: 'evil.example:7801' }, 421, 'OTHER_HOST'],
    ['that calls the cluster by its name', { origin: 'https://evil.example:7801' }, 403, 'OTHER_ORIGIN'],
  ])('%s is refused by every voter', async (_name, headers, status, reason) => {
    for (const address of addresses) {
      const answer = await post(address, LIST, '{}', { as: clientOf('admin'), headers });
      expect([answer?.status, reasonOf(answer)]).toEqual([status, reason]);
    }
  });
});

describe('another host’s address', () => {
  it('gets into no token, and into no certificate by a request', async () => {
    const [voter, own] = [addresses[0] as string, await addressOf(VOTELESS)];
    const stolen = await busbar(['host', 'token', 'create', VOTELESS, '--address', `${own},${voter}`]);
    expect([stolen.code, stolen.stderr.includes(`${voter} is an address of host "${VOTERS[0]}"`)]).toEqual([4, true]);

    const { text, token } = await json<{ text: string; token: { id: string } }>([
      ...['host', 'token', 'create', VOTELESS, '--address', own],
    ]);
    try {
      const { id: tokenId, secret } = parseJoinToken(text);
      const purposes = ['CERTIFICATE_PURPOSE_AGENT', 'CERTIFICATE_PURPOSE_NATS'];
      const csrs = await Promise.all(
        purposes.map(async (purpose) => ({ purpose, csrPem: (await createRequest('x')).csrPem })),
      );
      const answer = await post(voter, JOIN, JSON.stringify({ tokenId, secret, addresses: [voter], csrs }));
      expect([reasonOf(answer), answer?.body.includes('certificatePem')]).toEqual(['ADDRESS_NOT_IN_TOKEN', false]);
    } finally {
      await busbar(['host', 'token', 'delete', token.id]);
    }
  });
});
