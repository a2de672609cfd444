// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { connect as http2 } from 'node:http2';
import { createInterface } from 'node:readline';
import { connect as tls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { KeyPairPem } from '@busbar/pki/authority';
import { NetworkRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { WatchNetworksResponse } from '@busbar/proto/gen/busbar/v1/network';
import { VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import { createClient } from 'nice-grpc';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { putRecord } from '../records/kinds.ts';
import { newAuthority, startWire, type Wire } from '../testing/wire.ts';
import { CONNECTION_LIMITS, UNPROVEN_LIFE_MS } from './connections.ts';
import { READ_AT_ONCE } from './intake.ts';

/**
 * Goal: a caller that holds on to everything it can get costs the controller a bounded amount of memory, and others do not
 * notice. Method: the hostile caller is a process of its own at another address; the memory of this one, the server's, is
 * measured; somebody at 127.0.0.1 makes calls meanwhile. Sequential, since memory and time are measured.
 */
const MIB = 1024 ** 2;
const CONNECTIONS = 10_000;
/** What two cores that are busy with other things may take for a call that takes milliseconds. */
const CALL_LIMIT_MS = 5_000;
const PATIENCE = { timeout: 45_000 };
vi.setConfig({ testTimeout: 150_000 });

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

let wire: Wire;
let viewer: KeyPairPem;
let operator: KeyPairPem;
const children: ChildProcess[] = [];
beforeAll(async () => {
  wire = await startWire(await newAuthority('ours'));
  [viewer, operator] = [await wire.client('viewer'), await wire.client('operator')];
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(() => wire.stop());

/** The latest line of a hostile caller. Its limit of open files is raised; where that is not allowed it opens fewer. */
function flood(kind: string, port: number, count: number, localAddress = '127.0.0.2'): () => Record<string, unknown> {
  const fixture = fileURLToPath(new URL('../testing/flood.fixture.ts', import.meta.url));
  const order = {
    kind,
    port,
    count,
    localAddress,
    ca: wire.ca,
    // Whose requests may be larger than a viewer's.
    cert: operator.certificatePem,
    key: operator.keyPem,
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
  collect();
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

describe('10,000 idle connections to each port, and slow loris with half a header', () => {
  it('cost little, keep nobody out, and are sent away', async (context) => {
    await othersAreServed();
    const before = memory();
    const idle = [flood('idle', wire.grpcPort, CONNECTIONS), flood('idle', wire.edgePort, CONNECTIONS)];
    const slow = flood('half-headers', wire.edgePort, 100, '127.0.0.3');
    for (const told of idle) {
      await expect.poll(told, PATIENCE).toHaveProperty('held');
      const opened = Number(told().opened);
      if (opened < CONNECTIONS)
        await context.annotate(`only ${opened} connections: the limit of open files is too low here`);
      // Fewer than this would show nothing.
      expect(opened).toBeGreaterThanOrEqual(1_000);
      expect(told().held).toBeLessThanOrEqual(CONNECTION_LIMITS.unprovenPerAddress);
    }
    for (const { unproven, turnedAway } of [wire.grpc.connections(), wire.edge.connections()]) {
      expect(unproven).toBeLessThanOrEqual(CONNECTION_LIMITS.unprovenPerAddress);
      expect(turnedAway).toBeGreaterThan(500);
    }
    await othersAreServed();
    // 20,000 sockets that came and went leave something behind; as TLS connections they would take a gigabyte.
    expect((memory() - before) / MIB).toBeLessThan(250);
    const sentAway = { timeout: UNPROVEN_LIFE_MS + PATIENCE.timeout };
    await expect.poll(slow, sentAway).toMatchObject({ opened: 100, answers: { 408: 100 } });
    await expect
      .poll(() => [wire.grpc, wire.edge].map((each) => each.connections().unproven), sentAway)
      .toEqual([0, 0]);
  });
});

describe('slow loris with halves of requests', () => {
  it('takes the memory of a few, and is sent away', async () => {
    const before = memory();
    const bodies = flood('half-bodies', wire.edgePort, 200);
    const streams = flood('half-streams', wire.grpcPort, 1_000);
    await expect.poll(bodies, PATIENCE).toHaveProperty('opened', 200);
    await expect.poll(streams, PATIENCE).toHaveProperty('opened', 1_000);
    await othersAreServed();
    const count = (told: () => Record<string, unknown>, what: string, code: string) => () =>
      Number((told()[what] as Record<string, number> | undefined)?.[code] ?? 0);
    // The places of the first go to the next. 4 is DEADLINE_EXCEEDED.
    await expect.poll(count(bodies, 'answers', '408'), PATIENCE).toBeGreaterThanOrEqual(READ_AT_ONCE);
    await expect.poll(count(streams, 'statuses', '4'), PATIENCE).toBeGreaterThanOrEqual(READ_AT_ONCE);
    // On each port two generations of 32, and what is not collected yet (some 150 MB), instead of 630 MB in all.
    expect((memory() - before) / MIB).toBeLessThan(2 * READ_AT_ONCE * (0.9 + 0.5) + 250);
    await othersAreServed();
  });
});

/** 30 MB for each watcher: more than the kernel takes in for a reader that does not read (some 10 MB). */
const LARGE = { changes: 300, bytes: 100_000 };
/** More than the change log keeps. */
const SMALL = { changes: 12_000, bytes: 10 };
const WATCHERS = 10;

/** A watcher that does not read until it is told to. */
interface Watcher {
  resume(): void;
  toldToResync(): boolean;
  destroy(): void;
}
const WATCH = '/busbar.v1.NetworkService/WatchNetworks';
const trust = () => ({ ca: wire.ca, cert: viewer.certificatePem, key: viewer.keyPem, host: '127.0.0.1' });

async function overGrpc(): Promise<Watcher> {
  const session = http2(`https://localhost:${wire.grpcPort}`, trust());
  const headers = { ':method': 'POST', ':path': WATCH, 'content-type': 'application/grpc', te: 'trailers' };
  const stream = session.on('error', () => {}).request(headers);
  stream.on('error', () => {}).pause();
  stream.end(Buffer.alloc(5));
  let bytes = Buffer.alloc(0);
  let told = false;
  stream.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt32BE(1)) {
      const end = 5 + bytes.readUInt32BE(1);
      told ||= WatchNetworksResponse.decode(bytes.subarray(5, end)).change === ChangeKind.RESYNC;
      bytes = bytes.subarray(end);
    }
  });
  return { resume: () => stream.resume(), toldToResync: () => told, destroy: () => session.destroy() };
}

async function overHttps(): Promise<Watcher> {
  const socket = tls({ ...trust(), port: wire.edgePort });
  await new Promise((resolve) => socket.once('secureConnect', resolve));
  socket.on('error', () => {}).pause();
  socket.write(`POST ${WATCH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}`);
  let tail = '';
  let told = false;
  socket.on('data', (chunk: Buffer) => {
    tail = `${tail}${chunk.toString()}`.slice(-100_000);
    told ||= tail.includes('event: resync');
  });
  return { resume: () => socket.resume(), toldToResync: () => told, destroy: () => socket.destroy() };
}

/** Writes, and lets view and watchers see it. Returns by how many MiB memory grew. */
async function write(): Promise<number> {
  const before = memory();
  for (const { changes, bytes } of [LARGE, SMALL]) {
    for (let i = 0; i < changes; i++) {
      const record = { meta: { id: 'a', name: 'a', labels: { v: `${i}${'x'.repeat(bytes)}` } } };
      const { revision } = wire.rig.truth.txn({
        compare: [],
        writes: [putRecord('network', 'a', NetworkRecord.fromPartial(record))],
      });
      if (bytes < LARGE.bytes && i % 1_000 !== 999) continue;
      await wire.rig.view.waitFor(revision, 60_000);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  return (memory() - before) / MIB;
}

describe('watchers that never read, over both transports', () => {
  it('hold no queue, and are told to begin anew when they read again', async () => {
    // The first time the store's own history grows; from then on it stays as long as it is.
    await write();
    const watchers = await Promise.all([overGrpc, overHttps].flatMap((open) => Array.from({ length: WATCHERS }, open)));
    // As queues they would be 600 MB.
    expect(await write()).toBeLessThan(100);
    await othersAreServed();
    for (const watcher of watchers) watcher.resume();
    await expect.poll(() => watchers.filter((each) => each.toldToResync()).length, PATIENCE).toBe(watchers.length);
    for (const watcher of watchers) watcher.destroy();
  });
});
