// SPDX-License-Identifier: Apache-2.0
// npm run bench: what Busbar adds to the programs below it, measured against them in the same run.
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { eventually } from '@busbar/deploy/demo/guest-http';
import { buildGuestImage } from '@busbar/deploy/guest/build';
import { hostExec, labDown, labUp } from '@busbar/deploy/lab/lab';
import { hostRoot, pkiDir } from '@busbar/deploy/lab/paths';
import { CONTROLLER_PORT, type LabPlan } from '@busbar/deploy/lab/plan';
import { HostServiceDefinition, HostState } from '@busbar/proto/gen/busbar/v1/host';
import { ImageFormat, ImageServiceDefinition, type ImportImageRequest } from '@busbar/proto/gen/busbar/v1/image';
import { OperationServiceDefinition, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { CreateVmRequest, RunPolicy, VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import { type Channel, ChannelCredentials, createChannel, createClientFactory } from 'nice-grpc';
import { compare, type Row, table, timed } from './measure.ts';

const LAB = 'bench';
const HOST = 'host1';
const MIB = 1024 ** 2;

function channel(plan: LabPlan): Channel {
  const file = (name: string) => readFileSync(join(pkiDir(LAB), name));
  const trust = ChannelCredentials.createSsl(file('ca.crt'), file('admin.key'), file('admin.crt'));
  const address = plan.hosts.find((host) => host.name === HOST)?.management;
  return createChannel(`${address}:${CONTROLLER_PORT}`, trust, { 'grpc.ssl_target_name_override': HOST });
}

const virsh = (...args: string[]) => hostExec(LAB, HOST, ['virsh', '--quiet', ...args], { timeoutMs: 60_000 });

function clients(over: Channel) {
  const factory = createClientFactory();
  return {
    vms: factory.create(VmServiceDefinition, over),
    images: factory.create(ImageServiceDefinition, over),
    hosts: factory.create(HostServiceDefinition, over),
    operations: factory.create(OperationServiceDefinition, over),
  };
}

type Clients = ReturnType<typeof clients>;

async function ended(api: Clients, id: string | undefined): Promise<void> {
  const { operation } = await api.operations.waitOperation({ operation: id ?? '', timeoutMs: 120_000 });
  if (operation?.state !== OperationState.SUCCEEDED)
    throw new Error(`operation ${id}: ${operation?.state} ${operation?.error?.message}`);
}

/** API call to libvirt "running", against `virsh create` of the XML that Busbar made for it. */
async function vmStart(api: Clients): Promise<Row> {
  const { operation } = await api.vms.createVm(
    CreateVmRequest.fromPartial({
      name: 'bench-start',
      spec: {
        runPolicy: RunPolicy.RUNNING,
        cpu: { vcpus: 1 },
        memoryBytes: BigInt(128 * MIB),
        disks: [{ name: 'boot', image: 'bench-0' }],
        placement: { pinnedHost: HOST },
      },
    }),
  );
  await ended(api, operation?.id);
  // Without Busbar's metadata, id and name: a domain that claims an epoch that has ended is destroyed by the agent.
  const xml = (await virsh('dumpxml', '--inactive', '--security-info', 'bench-start')).stdout
    .replace(/<metadata>.*<\/metadata>/s, '')
    .replace(/<uuid>.*<\/uuid>/, '')
    .replaceAll('bench-start', 'bench-peer');
  await writeFile(hostRoot(LAB, HOST, 'var/lib/busbar/bench.xml'), xml);
  const stop = async () => ended(api, (await api.vms.stopVm({ vm: 'bench-start', force: true })).operation?.id);
  await stop();
  return compare({
    what: 'VM start, API call to running',
    peer: 'virsh create of the same XML',
    rounds: 7,
    ours: async () => {
      const ms = await timed(async () => ended(api, (await api.vms.startVm({ vm: 'bench-start' })).operation?.id));
      await stop();
      return ms;
    },
    theirs: async () => {
      const ms = await timed(() => virsh('create', '/var/lib/busbar/bench.xml'));
      await virsh('destroy', 'bench-peer');
      return ms;
    },
  });
}

async function* upload(name: string, file: Buffer): AsyncIterable<ImportImageRequest> {
  const spec = { format: ImageFormat.RAW, fileSizeBytes: BigInt(file.length), sha256: '' };
  yield { part: { $case: 'header', value: { name, labels: {}, spec, validateOnly: false, requestId: '' } } };
  for (let at = 0; at < file.length; at += MIB) yield { part: { $case: 'chunk', value: file.subarray(at, at + MIB) } };
}

/** A file streamed through the API into Ceph with checksum, against `rbd import` of the same file on the host itself. */
async function imageImport(api: Clients, imagePath: string): Promise<Row> {
  const file = readFileSync(imagePath);
  await writeFile(hostRoot(LAB, HOST, 'var/lib/busbar/bench.raw'), file);
  const rbd = (...args: string[]) =>
    hostExec(
      LAB,
      HOST,
      ['rbd', '--id', 'busbar-controller', '--keyring', '/etc/busbar/ceph/busbar-controller.keyring', ...args],
      { timeoutMs: 120_000 },
    );
  return compare({
    what: `image import, ${Math.round(file.length / MIB)} MiB raw, with snapshot`,
    peer: 'rbd import, snap create, snap protect',
    rounds: 5,
    ours: (round) =>
      timed(async () => {
        for await (const _ of api.images.importImage(upload(`bench-${round}`, file))) void _;
      }),
    theirs: (round) =>
      timed(async () => {
        await rbd('import', '/var/lib/busbar/bench.raw', `busbar/peer-${round}`);
        await rbd('snap', 'create', `busbar/peer-${round}@base`);
        await rbd('snap', 'protect', `busbar/peer-${round}@base`);
      }),
  });
}

async function main(): Promise<void> {
  const image = await buildGuestImage();
  const progress = (line: string) => process.stderr.write(`${line}\n`);
  await labDown(LAB, { progress });
  const plan = await labUp({ name: LAB, progress });
  const over = channel(plan);
  const api = clients(over);
  try {
    await eventually('hosts ready', 60_000, async () => {
      const { hosts } = await api.hosts.listHosts({});
      return hosts.filter((host) => host.status?.state === HostState.READY).length === plan.hosts.length ? true : null;
    });
    const rows = [await imageImport(api, image.path), await vmStart(api)];
    console.log(
      `${table(rows)}\nmedians; ratio is the median of the pairs' ratios, below 1 means faster than the peer`,
    );
  } finally {
    over.close();
    await labDown(LAB, { progress });
  }
}

await main();
