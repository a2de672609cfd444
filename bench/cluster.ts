// SPDX-License-Identifier: Apache-2.0
// The lab that is measured, and what reaches into it: the API of host1's controller, host1's etcd member, its programs.
import { readFileSync } from 'node:fs';
import { BareEtcd } from '@busbar/controller/store/etcd/bare.fixture';
import { eventually } from '@busbar/deploy/demo/guest-http';
import { hostExec, labDown, labUp } from '@busbar/deploy/lab/lab';
import { hostRoot, pkiDir } from '@busbar/deploy/lab/paths';
import { CONTROLLER_PORT, type LabPlan } from '@busbar/deploy/lab/plan';
import { HostServiceDefinition, HostState } from '@busbar/proto/gen/busbar/v1/host';
import { ImageServiceDefinition } from '@busbar/proto/gen/busbar/v1/image';
import { OperationServiceDefinition, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import { VolumeServiceDefinition } from '@busbar/proto/gen/busbar/v1/volume';
import { Client, credentials } from '@grpc/grpc-js';
import { type Channel, ChannelCredentials, createChannel, createClientFactory } from 'nice-grpc';

export const LAB = 'bench';
export const HOST = 'host1';
const ETCD_CLIENT_PORT = 2379;

export interface Cluster {
  readonly plan: LabPlan;
  readonly api: ReturnType<typeof clients>;
  /** A client without generated code around it: requests and answers are bytes. */
  rawApi(): Client;
  bareEtcd(): BareEtcd;
  close(): Promise<void>;
}

function clients(over: Channel) {
  const factory = createClientFactory();
  return {
    vms: factory.create(VmServiceDefinition, over),
    images: factory.create(ImageServiceDefinition, over),
    volumes: factory.create(VolumeServiceDefinition, over),
    hosts: factory.create(HostServiceDefinition, over),
    operations: factory.create(OperationServiceDefinition, over),
  };
}
export type Api = Cluster['api'];

const progress = (line: string): void => void process.stderr.write(`${line}\n`);

export async function openCluster(options: { readonly ceph: boolean }): Promise<Cluster> {
  await labDown(LAB, { progress });
  const plan = await labUp({ name: LAB, ceph: options.ceph, progress });
  const file = (name: string): Buffer => readFileSync(`${pkiDir(LAB)}/${name}`);
  const address = plan.hosts.find((host) => host.name === HOST)?.management;
  const named = { 'grpc.ssl_target_name_override': HOST };
  const channel = (): Channel =>
    createChannel(
      `${address}:${CONTROLLER_PORT}`,
      ChannelCredentials.createSsl(file('ca.crt'), file('admin.key'), file('admin.crt')),
      { ...named, 'grpc.use_local_subchannel_pool': 1 },
    );
  const over = channel();
  const api = clients(over);
  const etcdFile = (name: string): Buffer => readFileSync(hostRoot(LAB, HOST, `/etc/busbar/pki/${name}`));
  const cluster: Cluster = {
    plan,
    api,
    rawApi: () =>
      new Client(
        `${address}:${CONTROLLER_PORT}`,
        credentials.createSsl(file('ca.crt'), file('admin.key'), file('admin.crt')),
        { ...named, 'grpc.use_local_subchannel_pool': 1 },
      ),
    bareEtcd: () =>
      new BareEtcd(`${address}:${ETCD_CLIENT_PORT}`, {
        ca: etcdFile('etcd-ca.crt'),
        certificate: etcdFile('etcd-client.crt'),
        key: etcdFile('etcd-client.key'),
      }),
    async close() {
      over.close();
      await labDown(LAB, { progress });
    },
  };
  await eventually('hosts ready', 60_000, async () => {
    const { hosts } = await api.hosts.listHosts({});
    return hosts.filter((host) => host.status?.state === HostState.READY).length === plan.hosts.length ? true : null;
  });
  return cluster;
}

export async function ended(api: Api, id: string | undefined): Promise<void> {
  const { operation } = await api.operations.waitOperation({ operation: id ?? '', timeoutMs: 120_000 });
  if (operation?.state !== OperationState.SUCCEEDED)
    throw new Error(`operation ${id}: ${operation?.state} ${operation?.error?.message}`);
}

export const virsh = (...args: string[]) => hostExec(LAB, HOST, ['virsh', '--quiet', ...args], { timeoutMs: 60_000 });

export const rbd = (...args: string[]) =>
  hostExec(
    LAB,
    HOST,
    ['rbd', '--id', 'busbar-controller', '--keyring', '/etc/busbar/ceph/busbar-controller.keyring', ...args],
    { timeoutMs: 120_000 },
  );
