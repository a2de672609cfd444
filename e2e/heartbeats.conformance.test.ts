// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, fork } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { createServer, type Server } from 'node:net';
import { Lease } from '@busbar/agent/lease/lease';
import { ControllerSession } from '@busbar/agent/session/controller-session';
import { heartbeatDialer } from '@busbar/agent/session/heartbeat-dialer';
import { certainEndMs, DEFAULT_LEASE } from '@busbar/controller/lease/granter';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { noMetrics } from '@busbar/core/metrics';
import { Pulse } from '@busbar/core/pulse';
import { systemRandom } from '@busbar/core/random';
import { type Authority, createAuthority, issue, openAuthority } from '@busbar/pki/authority';
import { identityUri } from '@busbar/pki/identity';
import { canonicalSerial } from '@busbar/pki/purpose';
import { HostRole } from '@busbar/proto/gen/busbar/v1/host';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Begin, Order, Word } from './heartbeats.fixture.ts';

/**
 * Goal: heartbeats are answered whatever the controller's main thread does. Method: the real thread, TLS and agent's session;
 * the controller's side is a process of its own, whose main thread is kept busy without end, as a huge request would.
 */
const CLUSTER = 'test';
let authority: Authority;
let controller: ChildProcess;
let words: Word[];
let begin: Begin;
const ends: (() => void)[] = [];

beforeEach(async () => {
  const now = new Date();
  authority = await openAuthority(await createAuthority({ commonName: CLUSTER, now, validDays: 2 }));
  const server = await certificate('controller', 'host1');
  begin = {
    kind: 'begin',
    cluster: CLUSTER,
    controller: 'host1',
    address: '127.0.0.1:0',
    tls: { ca: authority.certificatePem, certificate: server.certificatePem, key: server.keyPem },
  };
  words = [];
  controller = fork(new URL('./heartbeats.fixture.ts', import.meta.url));
  controller.on('message', (word: Word) => words.push(word));
  ends.push(() => controller.kill('SIGKILL'));
});
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

function certificate(kind: 'controller' | 'host', host: string) {
  const uris = [identityUri({ kind, cluster: CLUSTER, host })];
  const usages = ['serverAuth', 'clientAuth'] as const;
  return issue(authority, { commonName: host, dns: [host], uris, usages, now: new Date(), validDays: 1 });
}

const order = (message: Order) => controller.send(message);
const word = async <K extends Word['kind']>(kind: K, withinMs = 15_000): Promise<Word & { kind: K }> => {
  const find = () => words.find((each): each is Word & { kind: K } => each.kind === kind);
  await expect.poll(find, { timeout: withinMs, interval: 20 }).toBeDefined();
  return find() as Word & { kind: K };
};

/** Host2's agent, as far as its lease goes. */
async function agent(port: number) {
  const own = await certificate('host', 'host2');
  const lease = new Lease(['host1']);
  const heard = { acknowledgements: 0 };
  const session = new ControllerSession({
    clock: systemClock,
    random: systemRandom,
    // Where the dialer looks for heartbeats: four above.
    dialer: heartbeatDialer({
      cluster: CLUSTER,
      controllers: [{ host: 'host1', address: `127.0.0.1:${port - 4}` }],
      loadTls: () => ({
        ca: Buffer.from(authority.certificatePem),
        certificate: Buffer.from(own.certificatePem),
        key: Buffer.from(own.keyPem),
      }),
    }),
    logger: silentLogger,
    controller: { host: 'host1', address: `127.0.0.1:${port - 4}` },
    controllers: ['host1'],
    lease,
    sources: {
      hello: { host: 'host2', bootId: 'b1', role: HostRole.HYPERVISOR, agentVersion: '0', agentInstanceId: 'i' },
      inventory: () => undefined,
      report: () => undefined,
    },
    pulse: new Pulse(systemClock),
    metrics: noMetrics,
    onAcknowledged: () => heard.acknowledgements++,
    onDesired: () => {},
    onAttach: () => {},
    onStoreMark: () => {},
  });
  session.start();
  ends.push(() => session.stop());
  return { heard, own, remainingMs: () => lease.expiresAtMs() - systemClock.nowMs(), session };
}

async function granted() {
  order(begin);
  const startedMs = systemClock.nowMs();
  const { port } = await word('listening');
  const host = await agent(port);
  await expect.poll(() => host.remainingMs() > 0, { timeout: 15_000, interval: 20 }).toBe(true);
  // As one that was just started it has waited until nothing that a former one granted can live.
  expect(systemClock.nowMs() - startedMs).toBeGreaterThan(certainEndMs(DEFAULT_LEASE.leaseTtlMs));
  return host;
}

it('keeps the lease of a host while the main thread stands still for five seconds, and then knows when it heard it', async () => {
  const host = await granted();
  const before = host.heard.acknowledgements;
  const [beganMs, forMs] = [systemClock.nowMs(), 5_000];
  let leastMs = Number.POSITIVE_INFINITY;
  const looking = setInterval(() => (leastMs = Math.min(leastMs, host.remainingMs())), 10);
  ends.push(() => clearInterval(looking));
  order({ kind: 'stand-still', forMs });
  order({ kind: 'seen', host: 'host2' });
  await word('moves-again');
  expect(systemClock.nowMs() - beganMs).toBeGreaterThanOrEqual(forMs);
  expect(leastMs).toBeGreaterThan(0);
  expect(host.heard.acknowledgements - before).toBeGreaterThan(10);
  // It reads the time at which the host was heard without waiting for any message of the thread's.
  expect(await word('seen')).toMatchObject({ bootId: 'b1', address: '127.0.0.1' });
  expect((await word('seen')).silentMs).toBeLessThan(DEFAULT_LEASE.leaseTtlMs);
});

it('answers nobody whose certificate was revoked, also on a connection that is open', async () => {
  const host = await granted();
  order({ kind: 'revoke', serial: canonicalSerial(new X509Certificate(host.own.certificatePem).serialNumber) });
  await expect.poll(() => host.remainingMs() <= 0, { timeout: 10_000, interval: 20 }).toBe(true);
  const before = host.heard.acknowledgements;
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(host.heard.acknowledgements).toBe(before);
  expect(host.session.problem).not.toBe('');
});

it('tells when the thread has died: here, because its address is taken', async () => {
  const taken: Server = createServer().listen(0, '127.0.0.1');
  ends.push(() => taken.close());
  await new Promise((resolve) => taken.once('listening', resolve));
  const address = taken.address();
  order({ ...begin, address: `127.0.0.1:${typeof address === 'object' ? address?.port : 0}` });
  expect((await word('died')).why).toContain('EADDRINUSE');
});
