// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { fixedTls } from '@busbar/pki/tls/source';
import { StoreRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EtcdTestCluster } from '../store/etcd/test-cluster.ts';
import { EtcdStore } from '../store/etcd.ts';
import { historySigns, logLead } from './behind.ts';

/**
 * Goal: a store that `etcdctl snapshot restore` made says so by itself, whatever token it was restored with, and a store that lives on
 * never does. Method: real etcd members, real snapshots.
 */
const run = promisify(execFile);
const PUTS = 100;

let cluster: EtcdTestCluster;
let store: EtcdStore;
beforeEach(async () => {
  cluster = await EtcdTestCluster.start(3);
  store = newStore();
});
afterEach(async () => {
  await store.close();
  await cluster.stop();
});

function newStore(): EtcdStore {
  return new EtcdStore({
    members: cluster.addresses,
    tls: fixedTls(cluster.tls),
    clock: systemClock,
    log: silentLogger,
  });
}

async function write(count = PUTS): Promise<void> {
  for (let i = 0; i < count; i++)
    await store.txn({ compare: [], writes: [{ kind: 'put', key: 'busbar/x', value: String(i) }] });
}

const file = (name: string) => join(cluster.directory, name);
const etcdctl = (...args: string[]) => run('etcdctl', args, { env: { PATH: process.env.PATH, ETCDCTL_API: '3' } });

async function save(): Promise<void> {
  const tls = ['--cacert', file('ca.crt'), '--cert', file('etcd.crt'), '--key', file('etcd.key')];
  await etcdctl('--endpoints', `https://${cluster.address(0)}`, ...tls, 'snapshot', 'save', file('backup.db'));
}

/** As docs/operations.md says: all members stopped, their data moved away, the snapshot restored on each. */
async function restore(token?: string): Promise<void> {
  await store.close();
  for (const index of [0, 1, 2]) await cluster.kill(index);
  for (const index of [0, 1, 2]) {
    const dataDir = file(cluster.name(index));
    await rm(dataDir, { recursive: true, force: true });
    const flags = ['--name', cluster.name(index), '--data-dir', dataDir, '--initial-cluster', cluster.initialCluster];
    const own = ['--initial-advertise-peer-urls', cluster.peerUrl(index)];
    const named = token === undefined ? [] : ['--initial-cluster-token', token];
    await etcdctl('snapshot', 'restore', file('backup.db'), ...flags, ...own, ...named);
  }
  for (const index of [0, 1, 2]) await cluster.restart(index);
  await cluster.leader();
  store = newStore();
}

async function recorded(): Promise<StoreRecord> {
  const history = await store.history();
  return StoreRecord.fromPartial({ clusterId: history.clusterId, logLead: logLead(history) });
}

describe('the history of etcd', () => {
  it('shows nothing while it lives on: members die, keys are compacted, leases come and go', async () => {
    const record = await recorded();
    await write();
    const { revision } = await store.get('busbar/x');
    await cluster.reclaim(revision);
    const leader = await cluster.leader();
    await cluster.kill(leader);
    await cluster.leader([0, 1, 2].filter((index) => index !== leader));
    // The first call finds out that its member is dead; what became of its write, nobody knows.
    await write(1).catch(() => {});
    await write();
    for (let i = 0; i < 10; i++) await (await store.grantLease(2_000)).revoke();
    await cluster.restart(leader);
    await cluster.leader();
    expect(historySigns(record, await store.history())).toEqual([]);
    // A leader of a later version of Busbar, the first to look.
    expect(historySigns(undefined, await store.history())).toEqual([]);
  });

  it('shows a restore with a new token, and no more once that is recorded', async () => {
    const record = await recorded();
    await write();
    await save();
    await write();
    await restore('another');
    const signs = historySigns(record, await store.history());
    expect(signs).toHaveLength(2);
    expect(signs[0]).toContain(`etcd is another cluster than before (id`);
    expect(signs[1]).toContain('etcd was restored from a snapshot');
    // Adopted; and restored once more, from a later backup.
    const adopted = await recorded();
    await write();
    expect(historySigns(adopted, await store.history())).toEqual([]);
    await save();
    await restore('a-third');
    expect(historySigns(adopted, await store.history())).toHaveLength(2);
  });

  it('shows a restore with the token that it had', async () => {
    const record = await recorded();
    await write();
    await save();
    await restore();
    const history = await store.history();
    expect(history.clusterId).toBe(record.clusterId);
    expect(historySigns(record, history)).toEqual([expect.stringContaining('etcd was restored from a snapshot')]);
    // A backup from before there was a record.
    expect(historySigns(undefined, history)).toHaveLength(1);
  });
});
