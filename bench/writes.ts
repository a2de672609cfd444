// SPDX-License-Identifier: Apache-2.0
// Mutating API calls per second against bare etcd transactions of the same bytes: the same keys' sizes, the same
// comparisons, the same member, the same kind of client program. What is between the two is Busbar: TLS and gRPC once
// more, certificate, role, validation, plan, audit record, events.
import { randomUUID } from 'node:crypto';
import type { BareEtcd, BareTransaction } from '@busbar/controller/store/etcd/bare.fixture';
import { UpdateVmRequest } from '@busbar/proto/gen/busbar/v1/vm';
import type { Client } from '@grpc/grpc-js';
import type { Cluster } from './cluster.ts';
import { type Load, type Row, rateRow } from './measure.ts';

/** Long enough for some hundred calls at 1 client, short enough that both sides see the same machine. */
const ROUND_MS = 2_000;
const ROUNDS = 5;
const PATH = '/busbar.v1.VmService/UpdateVm';

type Bytes = Uint8Array;

function update(client: Client, name: string, round: number): Promise<void> {
  const request = UpdateVmRequest.encode(
    UpdateVmRequest.fromPartial({
      vm: name,
      labels: { bench: `value-${String(round).padStart(8, '0')}` },
      updateMask: ['labels'],
      requestId: randomUUID(),
    }),
  ).finish();
  const bytes = (value: Bytes): Buffer => Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      PATH,
      bytes,
      (answer: Buffer) => answer,
      request,
      (error) => (error === null ? resolve() : reject(error)),
    );
  });
}

/** The health service answers from memory, and asks for no certificate, role or record. */
function empty(client: Client): Promise<void> {
  const none = (): Buffer => Buffer.alloc(0);
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest('/grpc.health.v1.Health/Check', none, none, null, (error) =>
      error === null ? resolve() : reject(error),
    );
  });
}

/** Each client sends its next call when the former one was answered. */
async function load(clients: number, call: (client: number, round: number) => Promise<unknown>): Promise<Load> {
  const began = performance.now();
  const times: number[] = [];
  await Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      for (let round = 0; performance.now() - began < ROUND_MS; round++) {
        const sent = performance.now();
        await call(client, round);
        times.push(performance.now() - sent);
      }
    }),
  );
  const seconds = (performance.now() - began) / 1000;
  return { perSecond: times.length / seconds, medianMs: times.sort((a, b) => a - b)[times.length >> 1] ?? Number.NaN };
}

/** What one call writes, learned from one call: keys and values of its transaction. */
async function learn(cluster: Cluster, etcd: BareEtcd, api: Client, vm: string): Promise<BareTransaction> {
  await update(api, vm, 0);
  const { vm: after } = await cluster.api.vms.getVm({ vm });
  const written = (await etcd.range('busbar/')).filter((kv) => kv.modRevision === after?.meta?.revision);
  if (written.length < 2)
    throw new Error(`one call wrote ${written.length} keys; at least the VM and its request id were expected`);
  return {
    // As the call does: the VM unchanged, everything else new.
    compare: written.map(({ key }) => ({ key, modRevision: 0n })),
    puts: written.map(({ key, value }) => ({ key, value })),
  };
}

export async function writes(
  cluster: Cluster,
  clientCounts: readonly number[],
  vms: readonly string[],
): Promise<readonly Row[]> {
  const etcd = cluster.bareEtcd();
  const api = cluster.rawApi();
  const shape = await learn(cluster, etcd, api, vms[0] ?? '');
  const sizes = shape.puts.map(({ key, value }) => Buffer.byteLength(key) + Buffer.byteLength(value));
  process.stderr.write(`one UpdateVm writes ${shape.puts.length} keys, ${sizes.join(' + ')} bytes\n`);
  const record = shape.puts.findIndex(({ key }) => key.startsWith('busbar/vm/'));
  const rows: Row[] = [];
  for (const clients of clientCounts) {
    const revisions = new Map<number, bigint>();
    const run = randomUUID().slice(0, 8);
    let calls = 0;
    // Keys of the same lengths, where no controller watches: one is written again and again as the VM's is, the rest anew.
    const bare = async (client: number): Promise<void> => {
      const call = calls++;
      const keys = shape.puts.map(({ key }, index) =>
        `x-bench/${run}/${index === record ? `vm-${client}` : `${index}-${call}`}`.padEnd(key.length, '.'),
      );
      const former = (index: number): bigint => (index === record ? (revisions.get(client) ?? 0n) : 0n);
      const revision = await etcd.txn({
        compare: keys.map((key, index) => ({ key, modRevision: former(index) })),
        puts: shape.puts.map(({ value }, index) => ({ key: keys[index] ?? '', value })),
      });
      revisions.set(client, revision);
    };
    rows.push(
      await rateRow({
        what: `UpdateVm, ${clients} client${clients === 1 ? '' : 's'}`,
        peer: 'bare etcd transaction, same bytes',
        goal: clients === 1 ? '+1 ms' : clients >= 64 ? '≥ 0.70' : '',
        rounds: ROUNDS,
        ours: () => load(clients, (client, round) => update(api, vms[client] ?? '', round)),
        theirs: () => load(clients, bare),
      }),
    );
    if (clients > 1) continue;
    // No manager behind a gRPC API of its own can be quicker than its store and one call with nothing in it.
    const bareAndCall = async (client: number): Promise<void> => {
      await empty(api);
      await bare(client);
    };
    rows.push(
      await rateRow({
        what: 'UpdateVm, 1 client',
        peer: 'the same, and an empty call to the controller before it',
        goal: '',
        rounds: ROUNDS,
        ours: () => load(clients, (client, round) => update(api, vms[client] ?? '', round)),
        theirs: () => load(clients, bareAndCall),
      }),
    );
  }
  etcd.close();
  api.close();
  return rows;
}
