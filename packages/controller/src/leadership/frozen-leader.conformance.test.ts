// SPDX-License-Identifier: Apache-2.0

import { fork } from 'node:child_process';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import type { Revision } from '@busbar/core/ids';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { fixedTls } from '@busbar/pki/tls/source';
import { afterEach, describe, expect, test } from 'vitest';
import { EtcdTestCluster } from '../store/etcd/test-cluster.ts';
import { EtcdStore } from '../store/etcd.ts';
import { collect, waitUntil } from '../store/examine.fixture.ts';
import type { Orders, Report } from './frozen-leader.fixture.ts';
import { Leadership } from './leadership.ts';

/**
 * Goal: a leader that stood still while another took over changes nothing any more. Method: a process that leads and
 * writes all the time is stopped (SIGSTOP), another controller leads, the process goes on (SIGCONT). Its late writes are
 * counted by itself, and looked for in the store by the other.
 */
const WORK = 'busbar/test/work/';
const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

describe('two leaders, forced by freezing one', () => {
  test('every late write of the old one is refused, by its own clock or by the store', async () => {
    const etcd = await EtcdTestCluster.start(3);
    ends.push(() => etcd.stop());
    const child = fork(join(import.meta.dirname, 'frozen-leader.fixture.ts'));
    const exited = new Promise((resolve) => child.once('exit', resolve));
    ends.push(() => {
      child.kill('SIGKILL');
      return exited;
    });
    const reports: Report[] = [];
    child.on('message', (report: Report) => reports.push(report));
    const { ca, certificate, key } = etcd.tls;
    const tls = { ca: String(ca), certificate: String(certificate), key: String(key) };
    child.send({ members: etcd.addresses, prefix: WORK, tls } satisfies Orders);
    await waitUntil(() => (reports.at(-1)?.written ?? 0) > 20);

    const store = new EtcdStore({
      members: etcd.addresses,
      tls: fixedTls(etcd.tls),
      clock: systemClock,
      log: silentLogger,
    });
    const next = new Leadership({
      store,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
      host: 'next',
      address: '10.0.0.8:7800',
    });
    const abort = new AbortController();
    const done = next.run(abort.signal);
    ends.push(async () => {
      abort.abort();
      await done;
      await store.close();
    });

    child.kill('SIGSTOP');
    await waitUntil(() => next.isLeader() !== null);
    const began = next.isLeader()?.createRevision ?? (0n as Revision);
    // What had left before the freeze may have arrived until now, before the next term began. From here on: nothing.
    const late = collect(store, WORK, began);
    const before = reports.at(-1);
    child.kill('SIGCONT');
    await waitUntil(() => (reports.at(-1)?.refusedByStore ?? 0) > 20);
    const after = reports.at(-1);
    console.info(`measured: late writes: ${JSON.stringify(after)}`);
    expect(after?.term).toBe(before?.term);
    // The two that were under way when it froze: their answers waited in its socket.
    expect(after?.written).toBeLessThanOrEqual((before?.written ?? 0) + 2);
    expect(after?.refusedByClock).toBeGreaterThan(0);
    expect(next.isLeader()?.createRevision).toBe(began);
    await store.get(WORK);
    late.stop();
    expect(late.events).toEqual([]);
    for (const kv of (await store.list(WORK)).value) expect(kv.modRevision).toBeLessThan(began);
  });
});
