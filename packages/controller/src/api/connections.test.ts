// SPDX-License-Identifier: Apache-2.0
import { type Socket, connect as tcp } from 'node:net';
import { connect as tls } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Authority, KeyPairPem } from '../pki/authority.ts';
import { newAuthority, startWire, type Wire } from '../testing/wire.ts';

vi.setConfig({ testTimeout: 30_000 });
const PATIENCE = { timeout: 15_000 };
const LIMITS = { perAddress: 8, unprovenPerAddress: 4, total: 12, unproven: 6 };

let authority: Authority;
let wire: Wire;
let own: KeyPairPem;
const sockets: Socket[] = [];
beforeAll(async () => {
  authority = await newAuthority('ours');
});
beforeEach(async () => {
  wire = await startWire(authority, LIMITS);
  own = await wire.client('viewer');
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await wire.stop();
});
afterAll(() => sockets.splice(0));

/** Opens so many connections that say nothing, and tells how many of them stay. */
function open(count: number, port: number, localAddress = '127.0.0.1', proven = false): () => number {
  let gone = 0;
  const mine = Array.from({ length: count }, () => {
    const to = { host: '127.0.0.1', port, localAddress };
    const socket: Socket = proven
      ? tls({ ...to, ca: wire.ca, cert: own.certificatePem, key: own.keyPem, ALPNProtocols: ['h2', 'http/1.1'] })
      : tcp(to);
    socket.on('error', () => {}).once('close', () => gone++);
    socket.resume();
    return socket;
  });
  sockets.push(...mine);
  return () => count - gone;
}

describe.each(['grpc', 'edge'] as const)('connections to %s', (name) => {
  const port = () => (name === 'grpc' ? wire.grpcPort : wire.edgePort);
  const counts = () => wire[name].connections();

  it('without a handshake: so many of an address, and of all', async () => {
    const first = open(20, port());
    await expect.poll(first, PATIENCE).toBe(4);
    expect(counts()).toEqual({ open: 4, unproven: 4, turnedAway: 16 });
    const second = open(20, port(), '127.0.0.2');
    await expect.poll(second, PATIENCE).toBe(2);
    expect(first()).toBe(4);
  });

  it('with a certificate do not count as strangers, and have a limit of their own', async () => {
    for (let i = 1; i <= 8; i++) {
      open(1, port(), '127.0.0.1', true);
      await expect.poll(counts, PATIENCE).toMatchObject({ open: i, unproven: 0 });
    }
    const more = open(3, port(), '127.0.0.1', true);
    await expect.poll(more, PATIENCE).toBe(0);
    // Others are let in as before.
    open(1, port(), '127.0.0.2', true);
    await expect.poll(counts, PATIENCE).toEqual({ open: 9, unproven: 0, turnedAway: 3 });
  });

  it('that end make room', async () => {
    const first = open(20, port());
    await expect.poll(first, PATIENCE).toBe(4);
    for (const socket of sockets.splice(0)) socket.destroy();
    await expect.poll(counts, PATIENCE).toMatchObject({ open: 0, unproven: 0 });
    open(1, port(), '127.0.0.1', true);
    await expect.poll(counts, PATIENCE).toMatchObject({ open: 1, unproven: 0 });
  });
});
