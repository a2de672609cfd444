// SPDX-License-Identifier: Apache-2.0
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { fixedTls } from '@busbar/pki/tls/source';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EtcdTestCluster } from '../store/etcd/test-cluster.ts';
import { EtcdStore } from '../store/etcd.ts';
import { waitUntil } from '../store/examine.fixture.ts';
import { Leadership, type LeaderTerm } from './leadership.ts';

interface Controller {
  readonly index: number;
  readonly store: EtcdStore;
  readonly leadership: Leadership;
  readonly abort: AbortController;
  done: Promise<void>;
}

describe('leadership on etcd, one controller beside each of three members', () => {
  let etcd: EtcdTestCluster;
  let controllers: Controller[] = [];

  beforeAll(async () => {
    etcd = await EtcdTestCluster.start(3);
  });
  afterAll(() => etcd?.stop());
  beforeEach(() => {
    controllers = [0, 1, 2].map((index) => {
      const store = new EtcdStore({
        members: etcd.addressesFrom(index),
        tls: fixedTls(etcd.tls),
        clock: systemClock,
        log: silentLogger,
      });
      const leadership = new Leadership({
        store,
        clock: systemClock,
        random: systemRandom,
        log: silentLogger,
        host: `host${index}`,
        address: `10.0.0.${index}:7400`,
      });
      const abort = new AbortController();
      return { index, store, leadership, abort, done: leadership.run(abort.signal) };
    });
  });
  afterEach(async () => {
    for (const { abort } of controllers) abort.abort();
    await Promise.all(controllers.map(({ done }) => done));
    for (const { store } of controllers) await store.close();
  });

  const current = () => controllers.find(({ leadership }) => leadership.isLeader() !== null);
  async function elected(): Promise<{ controller: Controller; term: LeaderTerm }> {
    await waitUntil(() => current() !== undefined);
    const controller = current();
    const term = controller?.leadership.isLeader();
    if (controller === undefined || !term) return elected();
    return { controller, term };
  }
  async function takeover(what: string, before: LeaderTerm, cause: () => void | Promise<void>): Promise<number> {
    const startMs = systemClock.nowMs();
    await cause();
    await waitUntil(() => (current()?.leadership.isLeader()?.createRevision ?? 0n) > before.createRevision);
    const tookMs = Math.round(systemClock.nowMs() - startMs);
    console.info(`measured: ${what}: ${tookMs} ms`);
    return tookMs;
  }

  test('a clean handover takes a moment', async () => {
    const { controller, term } = await elected();
    const tookMs = await takeover('new leader after a resignation', term, () => controller.leadership.resign());
    expect(tookMs).toBeLessThan(2_500);
    expect(current()).not.toBe(controller);
  });

  test('a leader that falls silent is replaced after its lease, and its writes are refused', async () => {
    const { controller, term } = await elected();
    // As if the host had died: no renewal and no resignation reach etcd any more.
    const tookMs = await takeover('new leader after the death of the old one', term, () => controller.store.close());
    expect(tookMs).toBeLessThan(10_000);
    expect(term.isValid()).toBe(false);
    const { controller: next, term: nextTerm } = await elected();
    const write = (fenced: LeaderTerm) =>
      next.store.txn({ compare: [fenced.fence()], writes: [{ kind: 'put', key: 'record', value: 'x' }] });
    expect((await write(term)).succeeded).toBe(false);
    expect((await write(nextTerm)).succeeded).toBe(true);
  });

  test('a host that carried the leader of Busbar and of etcd is replaced after an election and a lease', async () => {
    const { controller, term } = await elected();
    const leader = await etcd.leader();
    // The one case takes the other's place by moving Busbar's leadership until they coincide.
    if (controller.index !== leader) {
      await Promise.all(
        controllers.filter(({ index }) => index !== leader).map(({ leadership }) => leadership.resign(5_000)),
      );
      await waitUntil(() => current()?.index === leader);
    }
    const both = await elected();
    expect(both.controller.index).toBe(leader);
    const tookMs = await takeover('new leader after the death of both leaders', both.term, async () => {
      void both.controller.store.close();
      await etcd.kill(leader);
    });
    expect(tookMs).toBeLessThan(14_000);
    expect(term.isValid()).toBe(false);
    await etcd.restart(leader);
    await etcd.leader();
  });

  test('a frozen member of etcd that is not its leader costs no term', async () => {
    const { controller, term } = await elected();
    const leader = await etcd.leader();
    const frozen = controller.index === leader ? (leader + 1) % 3 : controller.index;
    await etcd.freeze(frozen);
    const untilMs = systemClock.nowMs() + 3_200;
    await waitUntil(() => systemClock.nowMs() > untilMs);
    expect(controller.leadership.isLeader()).toBe(term);
    etcd.thaw(frozen);
    await etcd.leader();
  });
});
