// SPDX-License-Identifier: Apache-2.0
// One change and 500 watchers: from sending the change to the moment at which the last watcher has it. And lists.
import { CreateVmRequest, RunPolicy, WatchVmsRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { type Cluster, ended } from './cluster.ts';
import { type Row, timed, timeRow } from './measure.ts';

const WATCHERS = 500;
/** Connections that the watchers share, on both sides. */
const CHANNELS = 10;
const ROUNDS = 15;
const MIB = 1024 ** 2;

/** Stopped VMs without disks: records as many as asked for. Returns their names. */
export async function makeVms(cluster: Cluster, from: number, count: number): Promise<readonly string[]> {
  const names = Array.from({ length: count }, (_, i) => `bench-${String(from + i).padStart(4, '0')}`);
  const left = [...names];
  const operations: string[] = [];
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      for (let name = left.shift(); name !== undefined; name = left.shift()) {
        const request = CreateVmRequest.fromPartial({
          name,
          spec: { runPolicy: RunPolicy.STOPPED, cpu: { vcpus: 1 }, memoryBytes: BigInt(64 * MIB) },
        });
        operations.push((await cluster.api.vms.createVm(request)).operation?.id ?? '');
      }
    }),
  );
  for (const id of operations) await ended(cluster.api, id);
  return names;
}

export async function listVms(cluster: Cluster, count: number): Promise<Row> {
  const etcd = cluster.bareEtcd();
  const row = await timeRow({
    what: `list ${count} VMs, one page`,
    peer: 'etcd range of the same records',
    goal: '',
    rounds: ROUNDS,
    ours: () =>
      timed(async () => {
        const { vms } = await cluster.api.vms.listVms({ pageSize: 1000 });
        if (vms.length < count) throw new Error(`${vms.length} VMs instead of ${count}`);
      }),
    theirs: () => timed(() => Promise.all([etcd.range('busbar/vm/'), etcd.range('busbar/vm-status/')])),
  });
  etcd.close();
  return row;
}

/** Tells when a round's last watcher has been told. */
class Muster {
  #left = 0;
  #arrived = () => {};

  /** Waits for this many. */
  await(count: number): Promise<void> {
    this.#left = count;
    return new Promise((resolve) => {
      this.#arrived = resolve;
    });
  }

  arrive(): void {
    if (--this.#left === 0) this.#arrived();
  }
}

export async function watchers(cluster: Cluster, vm: string): Promise<Row> {
  const theirs = new Muster();
  const etcds = Array.from({ length: CHANNELS }, () => cluster.bareEtcd());
  const first = etcds[0];
  if (first === undefined) throw new Error('no connection to etcd');
  const cancels = await Promise.all(
    Array.from({ length: WATCHERS }, (_, i) =>
      (etcds[i % CHANNELS] ?? first).watch('x-bench/watched', () => theirs.arrive()),
    ),
  );

  const ours = new Muster();
  const clients = Array.from({ length: CHANNELS }, () => cluster.rawApi());
  const { revision } = await cluster.api.vms.listVms({ pageSize: 1 });
  const request = WatchVmsRequest.encode({ revision }).finish();
  const name = Buffer.from(vm);
  const standing = ours.await(WATCHERS);
  const streams = Array.from({ length: WATCHERS }, (_, i) => {
    // As on the other side, no more than bytes: what a client makes of them is its own affair.
    const stream = clients[i % CHANNELS]?.makeServerStreamRequest(
      '/busbar.v1.VmService/WatchVms',
      (bytes: Uint8Array) => Buffer.from(bytes),
      (bytes: Buffer) => bytes,
      request,
    );
    stream?.on('data', (bytes: Buffer) => {
      if (bytes.includes(name)) ours.arrive();
    });
    stream?.on('error', () => {}); // cancelled by us at the end
    return stream;
  });
  const change = (round: number) =>
    cluster.api.vms.updateVm({ vm, labels: { round: String(round) }, updateMask: ['labels'] } as never);
  // A first change, seen by all, shows that every watch stands.
  await change(-1);
  await standing;

  const row = await timeRow({
    what: `a change reaches the last of ${WATCHERS} watchers`,
    peer: `put, and ${WATCHERS} etcd watches`,
    goal: '≤ 1.00',
    rounds: ROUNDS,
    ours: (round) =>
      timed(async () => {
        const all = ours.await(WATCHERS);
        await Promise.all([change(round), all]);
      }),
    theirs: (round) =>
      timed(async () => {
        const all = theirs.await(WATCHERS);
        await Promise.all([
          first.txn({ compare: [], puts: [{ key: 'x-bench/watched', value: 'v'.repeat(1000) + round }] }),
          all,
        ]);
      }),
  });
  for (const stream of streams) stream?.cancel();
  for (const client of clients) client.close();
  for (const cancel of cancels) cancel();
  for (const etcd of etcds) etcd.close();
  return row;
}
