// SPDX-License-Identifier: Apache-2.0
import { systemClock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { fixedTls } from '@busbar/pki/tls/source';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { leaderFor } from '../leader/leader.ts';
import { Leadership } from '../leadership/leadership.ts';
import { EtcdTestCluster } from '../store/etcd/test-cluster.ts';
import { EtcdStore } from '../store/etcd.ts';
import { waitUntil } from '../store/examine.fixture.ts';
import { groupCommit } from '../store/group-commit.ts';
import { ClusterView, PULSE_KEY } from '../view/view.ts';
import { type BudgetedCommit, budgetedCommit } from './commit.ts';
import { compactRegularly } from './compaction.ts';
import { FillWatch } from './fill.ts';
import { isNearlyFull, storeLevel } from './level.ts';
import { WriteBudget } from './write-budget.ts';

/** Goal: no caller fills a real etcd; one that is nearly full is led on, and gets its room back. */
const MIB = 1024 ** 2;
const QUOTA = 64 * MIB;
const TTL_MS = 3_000;
/** Of 80 KB: no more than the quota holds. */
const KEYS = 768;

let etcd: EtcdTestCluster;
const ends: (() => Promise<unknown>)[] = [];
let store: EtcdStore;
let fill: FillWatch;
let commit: BudgetedCommit;
let leaders: Leadership[];

function open(): EtcdStore {
  const opened = new EtcdStore({
    members: etcd.addresses,
    tls: fixedTls(etcd.tls),
    clock: systemClock,
    log: silentLogger,
  });
  ends.push(() => opened.close());
  return opened;
}

/** A controller, as far as it has to do with room: it leads, and then compacts. */
function controller(index: number, signal: AbortSignal): Leadership {
  const own = open();
  const deps = {
    store: own,
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  };
  const view = new ClusterView(deps);
  const leadership = new Leadership({ ...deps, log: silentLogger, host: `host${index}`, address: 'a:1' });
  leadership.onChange((term) => {
    if (term === null) return;
    const leader = leaderFor({ ...deps, view }, term, term.signal);
    void compactRegularly({ ...deps, view, fill: () => fill.now(), leader, pulseKey: PULSE_KEY });
  });
  const done = Promise.all([view.run(signal), leadership.run(signal)]);
  ends.push(() => done);
  return leadership;
}

beforeAll(async () => {
  etcd = await EtcdTestCluster.start(3, { flags: { 'quota-backend-bytes': String(QUOTA) } });
  ends.push(() => etcd.stop());
  store = open();
  const over = new AbortController();
  fill = new FillWatch({
    store,
    storage: { spool: async () => null },
    quotaBytes: QUOTA,
    clock: systemClock,
    logger: silentLogger,
  });
  const looking = fill.run(over.signal);
  ends.push(() => looking);
  const budget = new WriteBudget(systemClock, QUOTA, 1);
  commit = budgetedCommit({ commit: groupCommit(store), budget, fill: () => fill.now() });
  leaders = [controller(1, over.signal), controller(2, over.signal)];
  ends.push(async () => over.abort());
});
afterAll(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

const leading = () => leaders.find((each) => each.isLeader() !== null);
const level = () => storeLevel(fill.now().store, QUOTA);
const writer = (method: string, name = 'client/a') => ({
  caller: { name },
  audit: { method: `busbar.v1.VmService/${method}` },
});
const change = (value: string) => ({
  compare: [],
  writes: [{ kind: 'put', key: 'busbar/vm/1', value } as const],
});

async function refusal(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'done',
    (error: unknown) => (error instanceof BusbarError ? error.reason : String(error)),
  );
}

describe('an etcd with a quota of 64 MiB', () => {
  test('is not filled by a caller who writes over one VM for as long as he is let', async () => {
    await waitUntil(() => leading() !== undefined);
    let reason = 'done';
    let calls = 0;
    for (; reason === 'done' && calls < 1_000; calls++)
      reason = await refusal(commit(writer('UpdateVm'), change(String(calls).padEnd(90_000, '.'))));
    expect(reason).toBe('WRITE_BUDGET_SPENT');
    const { inUseBytes } = await store.usage();
    console.info(`measured: ${calls} calls of 90 KB were written, ${Math.round(inUseBytes / MIB)} MiB are in use`);
    expect(inUseBytes).toBeLessThan(QUOTA / 4);
    expect(await refusal(commit(writer('UpdateVm', 'client/b'), change('small')))).toBe('done');
  });

  test('that is nearly full takes stops and no changes; the leader renews, and another can be elected', async () => {
    // What would take days within the budgets, by hand.
    for (let n = 0; n < KEYS && (await store.usage()).inUseBytes < QUOTA * 0.73; n += 6) {
      const keys = Array.from({ length: 6 }, (_, i) => `busbar/test/${n + i}`);
      const writes = keys.map((key) => ({ kind: 'put', key, value: key.padEnd(80_000, '.') }) as const);
      await store.txn({ compare: [], writes });
    }
    await waitUntil(() => isNearlyFull(level()), 30_000);
    expect(await refusal(commit(writer('UpdateVm', 'client/b'), change('x')))).toBe('STORE_NEARLY_FULL');
    expect(await refusal(commit(writer('StopVm', 'client/b'), change('stopped')))).toBe('done');
    const former = leading();
    const term = former?.isLeader();
    const untilMs = systemClock.nowMs() + TTL_MS + 1_000;
    await waitUntil(() => systemClock.nowMs() > untilMs);
    expect(former?.isLeader()).toBe(term);
    await former?.resign();
    await waitUntil(() => leading() !== undefined && leading()?.isLeader() !== term);
  });

  test('has room again, without anybody at its members, once what took it is deleted', async () => {
    for (let n = 0; n < KEYS; n += 128) {
      // As many as a transaction may have.
      const keys = Array.from({ length: 128 }, (_, i) => `busbar/test/${n + i}`);
      const writes = keys.map((key) => ({ kind: 'delete', key }) as const);
      expect(await refusal(commit(writer('DeleteVm', 'client/b'), { compare: [], writes }))).toBe('done');
    }
    const beganMs = systemClock.nowMs();
    await waitUntil(() => level() === 'free', 60_000);
    console.info(`measured: room again after ${Math.round((systemClock.nowMs() - beganMs) / 1000)} s`);
    expect(await refusal(commit(writer('UpdateVm', 'client/b'), change('again')))).toBe('done');
  }, 120_000);
});
