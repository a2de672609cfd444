// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { connect as http2 } from 'node:http2';
import { createInterface } from 'node:readline';
import { connect as tls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { NetworkRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { WatchNetworksResponse } from '@busbar/proto/gen/busbar/v1/network';
import { VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import { createClient } from 'nice-grpc';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { KeyPairPem } from '../pki/authority.ts';
import { putRecord } from '../records/kinds.ts';
import { newAuthority, startWire, type Wire } from '../testing/wire.ts';
import { CONNECTION_LIMITS, UNPROVEN_LIFE_MS } from './connections.ts';
import { READ_AT_ONCE } from './intake.ts';

/**
 * Goal: a caller that holds on to everything it can get costs the controller a bounded amount of memory, and others do not
 * notice. Method: the hostile caller is a process of its own at 127.0.0.2; the memory of this one, the server's, is
 * measured; somebody at 127.0.0.1 makes calls meanwhile. Sequential, since memory and time are measured.
 */
const MIB = 1024 ** 2;
const CONNECTIONS = 10_000;
/** What two cores that are busy with other things may take for a call that takes milliseconds. */
const CALL_LIMIT_MS = 5_000;
const PATIENCE = { timeout: 60_000 };

let wire: Wire;
let viewer: KeyPairPem;
const children: ChildProcess[] = [];
beforeAll(async () => {
  wire = await startWire(await newAuthority('ours'));
  viewer = await wire.client('viewer');
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(() => wire.stop());

/** The latest line of a hostile caller. Its limit of open files is raised; where that is not allowed it opens fewer. */
function flood(kind: string, port: number, count: number): () => Record<string, unknown> {
  const fixture = fileURLToPath(new URL('../testing/flood.fixture.ts', import.meta.url));
  const order = {
    kind,
    port,
    count,
    localAddress: '127.0.0.2',
    ca: wire.ca,
    cert: viewer.certificatePem,
    key: viewer.keyPem,
  };
  const child = spawn(
    'sh',
    ['-c', 'ulimit -n 16384; exec "$0" "$@"', process.execPath, fixture, JSON.stringify(order)],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  children.push(child);
  let last: Record<string, unknown> = {};
  createInterface({ input: child.stdout }).on('line', (line) => {
    last = { ...last, ...(JSON.parse(line) as Record<string, unknown>) };
  });
  return () => last;
}

/** Memory that is in use, wherever: buffers of sockets are outside of the heap. */
function memory(): number {
  globalThis.gc?.();
  return process.memoryUsage.rss();
}

/** Somebody with a certificate, elsewhere, over both transports; new connections, as the guard is about these. */
async function othersAreServed(): Promise<void> {
  const beganMs = performance.now();
  const channel = wire.channel(viewer);
  await createClient(VmServiceDefinition, channel).listVms({});
  expect(await wire.post('/busbar.v1.VmService/ListVms', {}, viewer)).toMatchObject({ status: 200 });
  expect(performance.now() - beganMs).toBeLessThan(CALL_LIMIT_MS);
}

describe.each(['grpc', 'edge'] as const)('10,000 idle connections to %s', (name) => {
  it('cost little, and keep nobody out', async (context) => {
    await othersAreServed();
    const before = memory();
    const told = flood('idle', name === 'grpc' ? wire.grpcPort : wire.edgePort, CONNECTIONS);
    await expect.poll(told, PATIENCE).toHaveProperty('held');
    const opened = Number(told().opened);
    if (opened < CONNECTIONS)
      await context.annotate(`only ${opened} connections: the limit of open files is too low here`);
    // Fewer than this would show nothing.
    expect(opened).toBeGreaterThanOrEqual(1_000);
    expect(told().held).toBeLessThanOrEqual(CONNECTION_LIMITS.unprovenPerAddress);
    expect(wire[name].connections().unproven).toBeLessThanOrEqual(CONNECTION_LIMITS.unprovenPerAddress);
    expect(wire[name].connections().turnedAway).toBeGreaterThanOrEqual(opened - CONNECTION_LIMITS.unprovenPerAddress);
    await othersAreServed();
    expect((memory() - before) / MIB).toBeLessThan(100);
    // Those who say nothing are sent away.
    await expect
      .poll(() => wire[name].connections().unproven, { timeout: UNPROVEN_LIFE_MS + PATIENCE.timeout })
      .toBe(0);
  });
});

describe('slow loris', () => {
  it('with half a header, over HTTPS, is sent away', async () => {
    const told = flood('half-headers', wire.edgePort, 100);
    await expect.poll(told, PATIENCE).toHaveProperty('opened', 100);
    await othersAreServed();
    await expect.poll(told, PATIENCE).toMatchObject({ ended: 100, answers: { 408: 100 } });
  });

  it('with half a body, over HTTPS, takes the memory of a few and is sent away', async () => {
    const before = memory();
    const told = flood('half-bodies', wire.edgePort, 200);
    await expect.poll(told, PATIENCE).toHaveProperty('opened', 200);
    await othersAreServed();
    expect((memory() - before) / MIB).toBeLessThan(READ_AT_ONCE * 4 + 100);
    // Those who could not be read in the time of a request are answered by Node's own timer.
    await expect.poll(told, PATIENCE).toMatchObject({ ended: 200, answers: { 408: 200 } });
  });

  it('with a thousand halves of messages on one connection, over gRPC, does the same', async () => {
    const before = memory();
    const told = flood('half-streams', wire.grpcPort, 1_000);
    await expect.poll(told, PATIENCE).toHaveProperty('opened', 1_000);
    await othersAreServed();
    // DEADLINE_EXCEEDED for the first that were read: their places go to the next.
    await expect
      .poll(() => Number((told().statuses as Record<string, number> | undefined)?.['4'] ?? 0), PATIENCE)
      .toBeGreaterThanOrEqual(READ_AT_ONCE);
    expect((memory() - before) / MIB).toBeLessThan(READ_AT_ONCE * 4 + 150);
    await othersAreServed();
  });
});

/** So many changes are more than the change log keeps; as queues of fifty watchers they would be a gigabyte. */
const CHANGES = 20_000;
const WATCHERS = 50;

describe('fifty watchers that never read', () => {
  const change = (i: number) =>
    putRecord(
      'network',
      'a',
      NetworkRecord.fromPartial({ meta: { id: 'a', name: 'a', labels: { v: `${i} ${'x'.repeat(1_000)}` } } }),
    );

  /** Writes, and lets the view see it. Returns by how much memory grew. */
  async function write(): Promise<number> {
    const before = memory();
    for (let i = 0; i < CHANGES; i++) {
      const { revision } = wire.rig.truth.txn({ compare: [], writes: [change(i)] });
      if (i % 500 === 499) await wire.rig.view.waitFor(revision, 60_000);
    }
    return (memory() - before) / MIB;
  }

  it('hold no queue, and are told to begin anew when they read again', async () => {
    const alone = await write();
    const over = { ca: wire.ca, cert: viewer.certificatePem, key: viewer.keyPem, host: '127.0.0.1' };
    const session = http2(`https://localhost:${wire.grpcPort}`, over);
    const path = '/busbar.v1.NetworkService/WatchNetworks';
    const streams = Array.from({ length: WATCHERS / 2 }, () => {
      const stream = session.request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      stream.end(Buffer.alloc(5));
      stream.pause();
      return stream;
    });
    const sockets = await Promise.all(
      Array.from({ length: WATCHERS / 2 }, async () => {
        const socket = tls({ ...over, port: wire.edgePort });
        await new Promise((resolve) => socket.once('secureConnect', resolve));
        socket.pause();
        socket.write(`POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}`);
        return socket;
      }),
    );
    const watched = await write();
    // What the store itself keeps of the changes grows in both rounds.
    expect(watched - alone).toBeLessThan(100);
    await othersAreServed();

    let told = 0;
    for (const stream of streams) {
      let bytes = Buffer.alloc(0);
      stream.on('data', (chunk: Buffer) => {
        bytes = Buffer.concat([bytes, chunk]);
        while (bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt32BE(1)) {
          const end = 5 + bytes.readUInt32BE(1);
          if (WatchNetworksResponse.decode(bytes.subarray(5, end)).change === ChangeKind.RESYNC) told++;
          bytes = bytes.subarray(end);
        }
      });
    }
    for (const socket of sockets) {
      let text = '';
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        if (!text.includes('event: resync')) return;
        told++;
        text = '';
      });
    }
    await expect.poll(() => told, PATIENCE).toBe(WATCHERS);
    for (const socket of sockets) socket.destroy();
    session.destroy();
  });
});
