// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import { silentLogger } from '@busbar/core/log';
import { noMetrics } from '@busbar/core/metrics';
import { Pulse } from '@busbar/core/pulse';
import { seededRandom } from '@busbar/core/random';
import { HostRole } from '@busbar/proto/gen/busbar/v1/host';
import { beforeEach, describe, expect, it } from 'vitest';
import { Lease } from '../lease/lease.ts';
import { ControllerSession } from './controller-session.ts';
import { ScriptedCluster } from './scripted-cluster.fixture.ts';

let clock: VirtualClock;
let cluster: ScriptedCluster;
let lease: Lease;
let session: ControllerSession;
let desired: bigint[];

beforeEach(() => {
  clock = new VirtualClock();
  cluster = new ScriptedCluster(clock, 1);
  lease = new Lease(['h1']);
  desired = [];
  session = new ControllerSession({
    clock,
    random: seededRandom(1),
    dialer: cluster,
    logger: silentLogger,
    metrics: noMetrics,
    pulse: new Pulse(clock),
    controller: { host: 'h1', address: 'h1' },
    controllers: ['h1'],
    lease,
    sources: {
      hello: { host: 'h9', bootId: 'b', role: HostRole.HYPERVISOR, agentVersion: '0', agentInstanceId: 'i' },
      inventory: () => undefined,
      report: () => undefined,
    },
    onAcknowledged: () => {},
    onDesired: (state) => desired.push(state.position?.generation ?? 0n),
    onStoreMark: () => {},
    onAttach: () => {},
  });
});

const remainingMs = () => lease.expiresAtMs() - clock.nowMs();
const h1 = () => cluster.get('h1');

describe('session', () => {
  it('begins with hello and heartbeats at the interval of the welcome', async () => {
    h1().welcome.heartbeatIntervalMs = 100;
    session.start();
    await clock.advance(2000);
    expect(h1().kinds[0]?.[0]).toBe('hello');
    expect(h1().kinds[0]?.filter((kind) => kind === 'heartbeat').length).toBeGreaterThan(17);
    expect(remainingMs()).toBeGreaterThan(2000);
    expect(session.problem).toBe('');
  });

  it('dials again soon after the controller hung up', async () => {
    session.start();
    await clock.advance(1000);
    h1().hangUp();
    await clock.advance(200);
    expect(h1().sessions).toBe(2);
    expect(session.problem).toBe('');
  });

  it('notices a cut network, and that it healed, within about a second and a half', async () => {
    session.start();
    await clock.advance(1000);
    h1().cut = true;
    await clock.advance(60_000);
    expect(session.problem).not.toBe('');
    expect(remainingMs()).toBeLessThan(0);
    const attempts = h1().sessions;
    expect(attempts).toBeLessThan(60);
    h1().cut = false;
    expect(await clock.advanceUntil(() => remainingMs() > 0, 3500)).toBe(true);
  });

  it('dials a suspect link anew beside the old one, and keeps what the old one still proves', async () => {
    session.start();
    await clock.advance(1000);
    h1().mute = true;
    await clock.advance(1500);
    expect(h1().sessions).toBe(2);
  });

  it('does not hurry when the controller is down, and never waits longer than a second', async () => {
    h1().down = true;
    session.start();
    await clock.advance(30_000);
    h1().down = false;
    await clock.advance(1100);
    expect(session.problem).toBe('');
  });

  it.each([
    ['another name', { controller: 'h2' }],
    ['other controllers', { controllers: ['h1', 'h2', 'h3'] }],
    ['a lease that is too long', { leaseTtlMs: 3_600_000 }],
    ['a lease of two heartbeats', { heartbeatIntervalMs: 1250 }],
  ])('counts nothing of a controller with %s', async (_, wrong) => {
    Object.assign(h1().welcome, wrong);
    session.start();
    await clock.advance(200);
    h1().desire({ position: { term: 1n, generation: 1n } });
    await clock.advance(10_000);
    expect(lease.expiresAtMs()).toBe(Number.NEGATIVE_INFINITY);
    expect(desired).toEqual([]);
    expect(session.problem).toMatch(/h1/);
  });

  it('ends everything when stopped', async () => {
    session.start();
    await clock.advance(1000);
    session.stop();
    const heard = h1().kinds[0]?.length;
    await clock.advance(10_000);
    expect(h1().sessions).toBe(1);
    expect(h1().kinds[0]?.length).toBe(heard);
  });
});
