// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { buildDomain } from '@busbar/agent/domain/build';
import type { HostFacts } from '@busbar/agent/domain/facts';
import { serialize } from '@busbar/agent/domain/xml';
import { parse } from '@busbar/controller/api/validation';
import type { ClusterView } from '@busbar/controller/view/view';
import { domainOf } from '@busbar/controller/vm/domain';
import { PAGE_BYTES } from '@busbar/controller/vm/needs';
import { vmSpecSchema, withDefaults } from '@busbar/controller/vm/spec';
import type { Epoch, VmId } from '@busbar/core/ids';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import {
  CpuPolicy,
  DeviceNumaPolicy,
  type DeviceRequest,
  DiskBus,
  DiskCache,
  Firmware,
  Hugepages,
  IsolationPolicy,
  MachineType,
  NicModel,
  type NumaCell,
  NumaTopology,
  type Placement,
  RunPolicy,
  SmtPolicy,
  type VmSpec,
  WatchdogAction,
} from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';

/**
 * Goal: libvirt takes the XML of every spec that the API takes. Method: random specs at the limits of the API's own schema
 * go the whole way (schema, defaults, domain, XML) and are judged by libvirt's grammar, read by libxml2 as in libvirtd.
 */
const run = promisify(execFile);
const SCHEMA = '/usr/share/libvirt/schemas/domain.rng';
const SPECS = 150;
const MIB = 1024n ** 2n;

const innerName = fc.stringMatching(/^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$/);
const enumOf = <T extends string>(known: Readonly<Record<string, T>>) =>
  fc.constantFrom(...Object.entries(known).flatMap(([key, value]) => (key === 'UNRECOGNIZED' ? [] : [value])));
const disk = fc.record({
  name: innerName,
  volume: fc.constant(''),
  image: fc.constant(''),
  sizeBytes: fc.constant(MIB),
  bus: enumOf(DiskBus),
  cache: enumOf(DiskCache),
  bootOrder: fc.constant(0),
  readOnly: fc.boolean(),
});
const nic = fc.record({
  name: innerName,
  network: fc.constantFrom('plain', 'tagged', 'switched'),
  macAddress: fc.oneof(fc.constant(''), fc.stringMatching(/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/)),
  model: enumOf(NicModel),
  bootOrder: fc.constant(0),
});
const unique = <T extends { readonly name: string }>(one: fc.Arbitrary<T>) =>
  fc.uniqueArray(one, { maxLength: 16, selector: (item) => item.name });
const topology = fc.record({
  sockets: fc.integer({ min: 1, max: 4 }),
  cores: fc.integer({ min: 1, max: 16 }),
  threads: fc.integer({ min: 1, max: 8 }),
});
const cpu = fc
  .tuple(
    fc.option(topology, { nil: undefined }),
    fc.integer({ min: 1, max: 512 }),
    fc.stringMatching(/^[A-Za-z0-9][-A-Za-z0-9_.]{0,63}$/),
  )
  .chain(([shape, vcpus, model]) =>
    fc.record({
      vcpus: fc.constant(shape === undefined ? vcpus : shape.sockets * shape.cores * shape.threads),
      topology: fc.constant(shape),
      model: fc.constantFrom('', 'host-model', 'host-passthrough', 'max', model),
      policy: enumOf(CpuPolicy),
      smtPolicy: fc.constant(SmtPolicy.UNSPECIFIED),
      realtimePriority: fc.integer({ min: 1, max: 99 }),
      ioThreads: fc.nat(16),
    }),
  )
  .map((made) => ({ ...made, realtimePriority: made.policy === CpuPolicy.REALTIME ? made.realtimePriority : 0 }));
const spec: fc.Arbitrary<VmSpec> = fc
  .record({
    runPolicy: enumOf(RunPolicy),
    cpu,
    memoryBytes: fc.bigInt({ min: 16n, max: 16n * 1024n * 1024n }).map((mib) => mib * MIB),
    machineType: enumOf(MachineType),
    firmware: enumOf(Firmware),
    disks: unique(disk),
    nics: unique(nic),
    serialConsoleDisabled: fc.boolean(),
    guestAgentDisabled: fc.boolean(),
    watchdog: enumOf(WatchdogAction),
    cloudInit: fc.option(
      fc.record({ userData: fc.string(), networkConfig: fc.string(), redacted: fc.constant(false) }),
      { nil: undefined },
    ),
    ha: fc.constant(undefined),
    isolationPolicy: enumOf(IsolationPolicy),
    placement: fc.constant(undefined),
    shutdownTimeoutMs: fc.constantFrom(0, 1000, 3_600_000),
    hugepages: enumOf(Hugepages),
    memoryLocked: fc.boolean(),
    numa: fc.option(
      fc.record({
        topology: fc.constantFrom(NumaTopology.NONE, NumaTopology.AUTOMATIC),
        cells: fc.constant([] as NumaCell[]),
        oneNodeRequired: fc.boolean(),
      }),
      { nil: undefined },
    ),
    devices: fc.constantFrom<DeviceRequest[]>(
      [],
      [{ class: 'process-bus-nic', count: 2, numaPolicy: DeviceNumaPolicy.REQUIRED }],
    ),
  })
  // Pages divide the memory.
  .map((made) => ({ ...made, memoryBytes: pageMultiple(made.memoryBytes, made.hugepages) }))
  .chain((made) =>
    // Boot orders are used once each among disks and NICs.
    fc
      .shuffledSubarray(
        Array.from({ length: 32 }, (_, i) => i + 1),
        { minLength: 32 },
      )
      .map((orders) => ({
        ...made,
        disks: made.disks.map((one, i) => ({ ...one, bootOrder: orders[i] ?? 0 })),
        nics: made.nics.map((one, i) => ({ ...one, bootOrder: orders[16 + i] ?? 0 })),
      })),
  );

function pageMultiple(bytes: bigint, hugepages: Hugepages): bigint {
  const page = PAGE_BYTES[hugepages] ?? MIB;
  return ((bytes + page - 1n) / page) * page;
}

/** What a planner could have decided: on one or two NUMA nodes, with every CPU and device named. */
function placementOf({ cpu, memoryBytes, hugepages, devices }: VmSpec): Placement {
  const vcpus = cpu?.vcpus ?? 1;
  const page = PAGE_BYTES[hugepages] ?? MIB;
  const half = (memoryBytes / page / 2n) * page;
  const parts: [number, bigint][] =
    vcpus > 1 && half > 0n
      ? [
          [vcpus >> 1, half],
          [vcpus - (vcpus >> 1), memoryBytes - half],
        ]
      : [[vcpus, memoryBytes]];
  const isPinned = cpu?.policy === CpuPolicy.DEDICATED || cpu?.policy === CpuPolicy.REALTIME;
  const isRealtime = cpu?.policy === CpuPolicy.REALTIME;
  return {
    host: 'host1',
    cells: parts.map(([count, bytes], numaNode) => ({
      numaNode,
      vcpus: count,
      cpus: isPinned ? Array.from({ length: count }, (_, i) => 64 * numaNode + i) : [],
      memoryBytes: bytes,
    })),
    emulatorCpus: isRealtime ? [1000] : [],
    ioThreadCpus: isRealtime ? Array.from({ length: cpu.ioThreads }, (_, i) => 1001 + i) : [],
    devices: devices.flatMap((one) =>
      Array.from({ length: one.count }, (_, i) => ({ class: one.class, address: `0000:3b:1f.${i}`, numaNode: 0 })),
    ),
  };
}

const network = (kind: BridgeKind, bridge: string, vlanTag: number) => ({
  record: { spec: { kind, bridge, vlanTag } },
});
const NETWORKS = new Map([
  ['plain', network(BridgeKind.LINUX, 'br-vm', 0)],
  ['tagged', network(BridgeKind.OPEN_VSWITCH, 'br_ovs.1', 4094)],
  ['switched', network(BridgeKind.OPEN_VSWITCH, 'ABCDEFGHIJKLMNO', 0)],
]);
const view = { tables: { network: NETWORKS, volume: new Map() } } as unknown as ClusterView;
const VM = '6695eb01-f6a4-4304-89aa-000000000001' as VmId;

function xmlOf(given: VmSpec, name: string, kvmUsable: boolean, rbd: boolean): string {
  const checked = withDefaults(parse(vmSpecSchema, given), VM);
  const vm = {
    meta: { id: VM, name, labels: {}, createTime: undefined, updateTime: undefined, deleting: false },
    spec: checked,
    diskVolumes: Object.fromEntries(
      checked.disks.map((one, i) => [one.name, `5d2c0c39-41f5-4c53-9d10-${`${i}`.padStart(12, '0')}`]),
    ),
  } as unknown as Parameters<typeof domainOf>[0];
  const diskSource = (id: string) =>
    rbd
      ? ({ kind: 'rbd', pool: 'busbar', image: `volume.${id}` } as const)
      : ({ kind: 'file', path: `/srv/vms/${id}.raw` } as const);
  const domain = domainOf(
    vm,
    7n,
    view,
    { diskSource } as Parameters<typeof domainOf>[3],
    checked.cloudInit,
    placementOf(checked),
    undefined,
  );
  if (domain === null) throw new Error('a spec that the schema takes makes no domain');
  const facts: HostFacts = {
    uid: null,
    kvmUsable,
    rbd: { monitors: ['10.77.1.11:6789', '[fd00::2]:6789', '10.77.1.13'], user: 'busbar', secretUuid: VM },
    paths: {
      consoleSocket: `/run/busbar/console/${VM}`,
      serialLog: `/var/log/busbar/serial/${VM}.log`,
      nvram: `/var/lib/busbar/nvram/${VM}.fd`,
      seedIso: `/var/lib/busbar/seed/${VM}.iso`,
    },
    cpus: { online: [0, 1, 2, 3], isolated: [3], ofNode: new Map(), pretended: false },
  };
  return serialize(buildDomain({ vmId: VM, name, epoch: (2n ** 62n) as Epoch, domain }, facts));
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'busbar-schema-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What libxml2 says of files that do not follow libvirt's grammar; empty when all do. */
async function judge(files: readonly string[]): Promise<string> {
  try {
    await run('xmllint', ['--nonet', '--noout', '--relaxng', SCHEMA, ...files], { maxBuffer: 16 * 1024 ** 2 });
    return '';
  } catch (error) {
    const { stderr } = error as { stderr?: string };
    if (stderr === undefined || stderr === '') throw error;
    return stderr
      .split('\n')
      .filter((line) => !line.endsWith(' validates'))
      .join('\n');
  }
}

test('every spec that the API takes makes XML that libvirt takes', async () => {
  const name = fc.stringMatching(/^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/);
  const samples = fc.sample(fc.tuple(spec, name, fc.boolean(), fc.boolean()), { numRuns: SPECS, seed: 3 });
  const files: string[] = [];
  for (const [given, vmName, kvm, rbd] of samples) {
    const file = join(folder, `${files.length}.xml`);
    await writeFile(file, xmlOf(given, vmName, kvm, rbd));
    files.push(file);
  }
  expect(await judge(files)).toBe('');
});

test('the judge is one: it refuses what libvirt does not know', async () => {
  const file = join(folder, 'wrong.xml');
  const [given] = fc.sample(spec, { numRuns: 1, seed: 3 }) as [VmSpec];
  const xml = xmlOf(given, 'a', true, true);
  await writeFile(file, xml.replace('<on_crash>destroy</on_crash>', '<on_crash>hope</on_crash>'));
  expect(await judge([file])).toMatch(/wrong\.xml.*(Relax-NG|fails to validate)/s);
});
