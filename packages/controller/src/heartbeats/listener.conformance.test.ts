// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect, type TLSSocket } from 'node:tls';
import { type Clock, systemClock } from '@busbar/core/clock/clock';
import { FrameReader, frameOf } from '@busbar/core/frames';
import { silentLogger } from '@busbar/core/log';
import { type Authority, createAuthority, issue, openAuthority } from '@busbar/pki/authority';
import { type Identity, identityUri } from '@busbar/pki/identity';
import { canonicalSerial } from '@busbar/pki/purpose';
import { SessionRequest, SessionResponse } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Granter } from '../lease/granter.ts';
import { welcomeOf } from '../session/registry.ts';
import { HeartbeatListener } from './listener.ts';

/** Goal: nobody but a host has heartbeats answered, and nobody takes more of the listener than a host needs. */
const HOUR_MS = 3_600_000;
let authority: Authority;
let listener: HeartbeatListener;
let port: number;
let wallShiftMs: number;
let monotonicShiftMs: number;
const sockets: TLSSocket[] = [];
const clock: Clock = {
  ...systemClock,
  nowMs: () => systemClock.nowMs() + monotonicShiftMs,
  wallTime: () => new Date(Date.now() + wallShiftMs),
};

const newAuthority = async () =>
  openAuthority(await createAuthority({ commonName: 'test', now: new Date(), validDays: 9 }));
async function tlsOf(by: Authority, identity: Identity) {
  const name = identity.kind === 'client' ? identity.client : identity.host;
  const usages = ['serverAuth', 'clientAuth'] as const;
  const uris = [identityUri(identity)];
  const pair = await issue(by, { commonName: name, dns: [name], uris, usages, now: new Date(), validDays: 1 });
  const [ca, certificate, key] = [by.certificatePem, pair.certificatePem, pair.keyPem].map((pem) => Buffer.from(pem));
  return { ca: ca as Buffer, certificate: certificate as Buffer, key: key as Buffer };
}
const controller: Identity = { kind: 'controller', cluster: 'test', host: 'host1' };
const host = (name = 'host2'): Identity => ({ kind: 'host', cluster: 'test', host: name });

beforeEach(async () => {
  wallShiftMs = 0;
  monotonicShiftMs = 0;
  authority = await newAuthority();
  const granter = new Granter({ startedAtMs: -10_000, leaseTtlMs: 2_500 });
  listener = new HeartbeatListener({
    cluster: 'test',
    welcome: welcomeOf({ controller: 'host1', controllers: ['host1'] }),
    hear: (name, boot) => granter.hear(name, boot, clock.nowMs()),
    tls: await tlsOf(authority, controller),
    clock,
    logger: silentLogger,
  });
  port = await listener.listen('127.0.0.1:0');
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  listener.close();
});

async function dial(
  identity: Identity | null,
  by = authority,
  trusts = authority,
  given?: Awaited<ReturnType<typeof tlsOf>>,
) {
  const own = given ?? (identity === null ? null : await tlsOf(by, identity));
  const socket = connect({
    port,
    ca: Buffer.from(trusts.certificatePem),
    ...(own === null ? {} : { cert: own.certificate, key: own.key }),
    servername: 'host1',
  });
  sockets.push(socket);
  const answers: string[] = [];
  const reader = new FrameReader(9_000);
  socket.on('data', (piece: Buffer) => {
    for (const frame of reader.take(piece)) answers.push(SessionResponse.decode(frame).message?.$case ?? '');
  });
  socket.on('error', () => {});
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  await Promise.race([once(socket, 'secureConnect').catch(() => {}), closed]);
  const say = (message: Parameters<typeof SessionRequest.fromPartial>[0]['message']) =>
    socket.write(frameOf(SessionRequest.encode(SessionRequest.fromPartial({ message })).finish()));
  const hello = (name = 'host2') => say({ $case: 'hello', value: { host: name, bootId: `b-${name}` } });
  const beat = (number = 1n) => say({ $case: 'heartbeat', value: { number } });
  return { socket, answers, closed, say, hello, beat };
}

const answered = async (name = 'host2') => {
  const peer = await dial(host(name));
  peer.hello(name);
  peer.beat();
  await expect.poll(() => peer.answers, { timeout: 5_000 }).toEqual(['welcome', 'heartbeatAck']);
  return peer;
};

describe('the listener of heartbeats', () => {
  it.each<[string, () => Promise<{ closed: Promise<void> }>]>([
    ['without a certificate', () => dial(null)],
    ['with a client’s certificate', () => dial({ kind: 'client', cluster: 'test', client: 'anna' })],
    ['with a controller’s certificate', () => dial(controller)],
    ['with a host’s certificate of another cluster', () => dial({ ...host(), cluster: 'other' } as Identity)],
    ['with a certificate of another authority', async () => dial(host(), await newAuthority())],
  ])('hangs up on one %s', async (_, open) => {
    await (await open()).closed;
    await answered();
  });

  it.each<[string, Buffer]>([
    ['a frame that is too long', Buffer.from([0xff, 0xff])],
    ['what is no message', Buffer.from([0, 3, 0xff, 0xff, 0xff])],
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  ])('hangs up on a host that sends %s, and goes on answering others', async (_, bytes) => {
    const other = await answered('host3');
    const peer = await dial(host());
    peer.socket.write(bytes);
    await peer.closed;
    other.beat(2n);
    await expect.poll(() => other.answers.length, { timeout: 5_000 }).toBe(3);
  });

  it('hangs up on a host that sends more heartbeats than are due', async () => {
    const peer = await answered();
    for (let n = 2n; n < 1_000n; n++) peer.beat(n);
    await peer.closed;
    // Some that were missed are answered; a thousand are not.
    expect(peer.answers.length).toBeLessThan(200);
  });

  it('keeps four connections of a host: the newest', async () => {
    const peers = [];
    for (let i = 0; i < 6; i++) peers.push(await answered());
    await Promise.all(peers.slice(0, 2).map(({ closed }) => closed));
    const last = peers.at(-1);
    last?.beat(2n);
    await expect.poll(() => last?.answers.length, { timeout: 5_000 }).toBe(3);
  });

  it('answers no certificate beyond its end, which it counts on a connection by the clock that is never set', async () => {
    const peer = await answered();
    // Somebody sets the wall clock: leases live on, and nobody connects with a certificate that has ended.
    wallShiftMs = 25 * HOUR_MS;
    peer.beat(2n);
    await expect.poll(() => peer.answers.length, { timeout: 5_000 }).toBe(3);
    await (await dial(host('host3'))).closed;
    wallShiftMs = 0;
    monotonicShiftMs = 25 * HOUR_MS;
    peer.beat(3n);
    await peer.closed;
    expect(peer.answers).toHaveLength(3);
  });

  it('takes no connection with a certificate that was replaced a while ago, and leaves what is open', async () => {
    const identity = host();
    const own = await tlsOf(authority, identity);
    const serial = canonicalSerial(new X509Certificate(own.certificate).serialNumber);
    const peer = await dial(identity, authority, authority, own);
    peer.hello();
    await expect.poll(() => peer.answers, { timeout: 5_000 }).toEqual(['welcome']);
    listener.replace([{ serial, at: new Date(Date.now() - 1) }]);
    peer.beat();
    await expect.poll(() => peer.answers, { timeout: 5_000 }).toEqual(['welcome', 'heartbeatAck']);
    await (await dial(identity, authority, authority, own)).closed;
    await answered();
  });

  it('ends the connections of a certificate that is revoked, and takes a renewed one of its own for the next', async () => {
    const peer = await answered();
    const other = await answered('host3');
    listener.revoke([canonicalSerial(peer.socket.getX509Certificate()?.serialNumber ?? '')]);
    await peer.closed;
    other.beat(2n);
    await expect.poll(() => other.answers.length, { timeout: 5_000 }).toBe(3);
    const successor = await newAuthority();
    listener.setTls(await tlsOf(successor, controller));
    const next = await dial(host('host4'), successor, successor);
    next.hello('host4');
    await expect.poll(() => next.answers, { timeout: 5_000 }).toEqual(['welcome']);
    other.beat(3n);
    await expect.poll(() => other.answers.length, { timeout: 5_000 }).toBe(4);
  });
});
