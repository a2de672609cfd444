// SPDX-License-Identifier: Apache-2.0

import { type ChildProcess, fork } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { fixedTls } from '@busbar/pki/tls/source';
import { afterEach, describe, expect, test } from 'vitest';
import { EtcdTestCluster } from '../store/etcd/test-cluster.ts';
import { EtcdStore } from '../store/etcd.ts';
import { waitUntil } from '../store/examine.fixture.ts';
import type { Orders, Report } from './clock-jump.fixture.ts';
import { Leadership } from './leadership.ts';

/**
 * Goal: a wall clock that jumps (NTP after a dead battery, an operator's hand) changes nothing: leases, deadlines and
 * terms count on the monotonic clock. Method: a controller's leadership in a process of its own, on a real etcd, with a
 * wall clock that libfaketime moves under it while it runs; beside it a rival that waits for its chance.
 *
 * etcd itself cannot be treated so: Go reads the clock without the C library. Its leases count on Go's monotonic clock.
 */
const LIBRARY = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1';
const HOUR_MS = 3_600_000;
/** What a lease lasts, and then some: a term that lives so long after a jump was renewed after it. */
const LONGER_THAN_A_LEASE_MS = 4_000;

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

describe('a wall clock that jumps by an hour', () => {
  test('under the leader, forward and then back, costs no renewal, no term and no connection', async () => {
    // A suite that skips itself proves nothing: it fails.
    if (!existsSync(LIBRARY)) throw new Error(`${LIBRARY} is missing (Debian: apt-get install faketime)`);
    const etcd = await EtcdTestCluster.start(3);
    ends.push(() => etcd.stop());
    const clockFile = join(etcd.directory, 'wall-clock');
    const setWallClock = (offset: string) => writeFileSync(clockFile, `${offset}\n`);
    setWallClock('+0');
    ends.push(() => rmSync(clockFile, { force: true }));

    const child = fork(join(import.meta.dirname, 'clock-jump.fixture.ts'), {
      env: {
        ...process.env,
        LD_PRELOAD: LIBRARY,
        FAKETIME_TIMESTAMP_FILE: clockFile,
        FAKETIME_NO_CACHE: '1',
        FAKETIME_DONT_FAKE_MONOTONIC: '1',
      },
    });
    ends.push(() => ended(child));
    let last: Report | undefined;
    child.on('message', (report: Report) => {
      last = report;
    });
    const orders: Orders = {
      members: etcd.addresses,
      tls: { ca: String(etcd.tls.ca), certificate: String(etcd.tls.certificate), key: String(etcd.tls.key) },
    };
    child.send(orders);
    await waitUntil(() => last?.term != null);
    const before = last;
    const rival = await rivalOf(etcd);

    // Forward, and then back by twice as much: an hour behind.
    for (const hours of [1, -1]) {
      setWallClock(hours > 0 ? '+3600' : '-3600');
      const isThere = () => {
        const offMs = (last?.wallMs ?? 0) - systemClock.wallTime().getTime() - hours * HOUR_MS;
        return Math.abs(offMs) < 60_000;
      };
      await waitUntil(isThere);
      const untilMs = systemClock.nowMs() + LONGER_THAN_A_LEASE_MS;
      await waitUntil(() => {
        expect(last?.term).toBe(before?.term);
        expect(rival.isLeader()).toBeNull();
        return systemClock.nowMs() > untilMs;
      });
    }
    expect(last).toMatchObject({ term: before?.term, changes: 1, failures: [] });
    // The rival only waited: with the leader gone it leads.
    await ended(child);
    await waitUntil(() => rival.isLeader() !== null);
  });
});

async function rivalOf(etcd: EtcdTestCluster): Promise<Leadership> {
  const store = new EtcdStore({
    members: etcd.addresses,
    tls: fixedTls(etcd.tls),
    clock: systemClock,
    log: silentLogger,
  });
  const leadership = new Leadership({
    store,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    host: 'rival',
    address: '10.0.0.8:7800',
  });
  const abort = new AbortController();
  const done = leadership.run(abort.signal);
  ends.push(async () => {
    abort.abort();
    await done;
    await store.close();
  });
  return leadership;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await exited;
}
