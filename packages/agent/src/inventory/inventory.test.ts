// SPDX-License-Identifier: Apache-2.0
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseCpuList } from '@busbar/core/cpu-list';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseOpenVswitchBridges } from './devices.ts';
import { readKvm } from './kvm.ts';
import { parseCpuInfo, parseOsRelease } from './parse.ts';
import { readBootId, readInventory } from './read.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'bb-inv-'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function files(tree: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, text] of Object.entries(tree)) {
    await mkdir(join(root, dirname(path)), { recursive: true });
    await writeFile(join(root, path), `${text}\n`);
  }
}

async function links(tree: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, target] of Object.entries(tree)) {
    await mkdir(join(root, dirname(path)), { recursive: true });
    await symlink(target, join(root, path));
  }
}

interface Shape {
  readonly nodes: number;
  readonly cores: number;
  readonly threads: number;
}

/** As Linux numbers CPUs on x86: one thread of every core first, node after node. */
async function machine({ nodes, cores, threads }: Shape): Promise<void> {
  const total = nodes * cores * threads;
  const tree: Record<string, string> = {
    'sys/devices/system/cpu/online': `0-${total - 1}`,
    'sys/devices/system/cpu/isolated': '2-3',
    'proc/cpuinfo':
      'processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\nflags\t\t: vmx fpu lm\n\nprocessor\t: 1',
    'proc/meminfo': `MemTotal:       ${nodes * 1024} kB\nMemFree: 1 kB`,
  };
  for (let id = 0; id < nodes; id++) {
    const node = `sys/devices/system/node/node${id}`;
    const lists: string[] = [];
    for (let thread = 0; thread < threads; thread++) {
      const first = thread * nodes * cores + id * cores;
      lists.push(`${first}-${first + cores - 1}`);
    }
    tree[`${node}/cpulist`] = lists.join(',');
    tree[`${node}/meminfo`] = `Node ${id} MemTotal:       1024 kB\nNode ${id} MemFree: 5 kB`;
    tree[`${node}/distance`] = Array.from({ length: nodes }, (_, other) => (other === id ? 10 : 21)).join(' ');
    tree[`${node}/hugepages/hugepages-1048576kB/nr_hugepages`] = '2';
    tree[`${node}/hugepages/hugepages-2048kB/nr_hugepages`] = '512';
    tree[`${node}/hugepages/hugepages-2048kB/free_hugepages`] = '500';
  }
  for (let cpu = 0; cpu < total; cpu++) {
    const core = cpu % (nodes * cores);
    const siblings = Array.from({ length: threads }, (_, thread) => core + thread * nodes * cores).join(',');
    tree[`sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`] = siblings;
  }
  await files(tree);
}

describe('NUMA', () => {
  test.each([
    { nodes: 2, cores: 32, threads: 2 },
    { nodes: 8, cores: 8, threads: 1 },
    { nodes: 1, cores: 1, threads: 1 },
  ])('$nodes NUMA nodes of $cores cores with $threads threads', async (shape) => {
    await machine(shape);
    const { numaNodes, cpu, isolatedCpus, memoryBytes } = await readInventory(root, new Map());
    const total = shape.nodes * shape.cores * shape.threads;
    expect(numaNodes.map(({ id }) => id)).toEqual(Array.from({ length: shape.nodes }, (_, id) => id));
    expect(new Set(numaNodes.flatMap(({ cpus }) => cpus)).size).toBe(total);
    expect(cpu).toMatchObject({
      onlineCpus: total,
      model: 'Xeon',
      vendor: 'GenuineIntel',
      features: ['fpu', 'lm', 'vmx'],
    });
    expect(isolatedCpus).toEqual([2, 3]);
    expect(memoryBytes).toBe(BigInt(shape.nodes) * 1024n * 1024n);
    for (const node of numaNodes) {
      expect(node.smtSiblingSets).toHaveLength(shape.cores);
      expect(node.smtSiblingSets.flatMap(parseCpuList).toSorted((a, b) => a - b)).toEqual(node.cpus);
      expect(node.memoryBytes).toBe(1024n * 1024n);
      expect(node.distances).toHaveLength(shape.nodes);
      expect(node.distances[node.id]).toBe(10);
      expect(node.hugepages).toEqual([
        { pageSizeBytes: 2_097_152n, total: 512n, free: 500n },
        { pageSizeBytes: 1_073_741_824n, total: 2n, free: 0n },
      ]);
    }
  });

  test('second threads of a 2 × 32 machine', async () => {
    await machine({ nodes: 2, cores: 32, threads: 2 });
    const { numaNodes } = await readInventory(root, new Map());
    expect(numaNodes[1]?.cpus.slice(0, 2)).toEqual([32, 33]);
    expect(numaNodes[1]?.smtSiblingSets[0]).toBe('32,96');
  });

  test('a kernel without NUMA is one NUMA node; a CPU that is offline is not there', async () => {
    await files({
      'sys/devices/system/cpu/online': '0-1,3',
      'proc/meminfo': 'MemTotal: 2048 kB',
      'sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages': '4',
    });
    const { numaNodes } = await readInventory(root, new Map());
    expect(numaNodes).toEqual([
      {
        id: 0,
        cpus: [0, 1, 3],
        smtSiblingSets: ['0', '1', '3'],
        memoryBytes: 2_097_152n,
        hugepages: [{ pageSizeBytes: 2_097_152n, total: 4n, free: 0n }],
        distances: [10],
      },
    ]);
  });
});

test('PCI devices, with what passing them through needs', async () => {
  const pci = 'sys/bus/pci/devices';
  await files({
    [`${pci}/0000:00:00.0/class`]: '0x060000',
    [`${pci}/0000:3b:00.1/class`]: '0x020000',
    [`${pci}/0000:3b:00.1/vendor`]: '0x8086',
    [`${pci}/0000:3b:00.1/device`]: '0x1521',
    [`${pci}/0000:3b:00.1/numa_node`]: '1',
    [`${pci}/0000:5e:00.0/class`]: '0x030000',
    [`${pci}/0000:5e:00.0/vendor`]: '0x10de',
    [`${pci}/0000:5e:00.0/device`]: '0x1eb8',
    [`${pci}/0000:5e:00.0/numa_node`]: '-1',
  });
  await links({
    [`${pci}/0000:3b:00.1/driver`]: '../../../bus/pci/drivers/igb',
    [`${pci}/0000:3b:00.1/iommu_group`]: '../../../kernel/iommu_groups/42',
  });
  const { pciDevices } = await readInventory(root, new Map());
  expect(pciDevices).toEqual([
    {
      address: '0000:3b:00.1',
      vendorProduct: '8086:1521',
      classCode: '0x020000',
      driver: 'igb',
      numaNode: 1,
      iommuGroup: 42,
    },
    {
      address: '0000:5e:00.0',
      vendorProduct: '10de:1eb8',
      classCode: '0x030000',
      driver: '',
      numaNode: -1,
      iommuGroup: -1,
    },
  ]);
});

test('interfaces and bridges; not the loopback, not the taps of guests', async () => {
  const net = 'sys/class/net';
  await files({
    [`${net}/lo/address`]: '00:00:00:00:00:00',
    [`${net}/eth0/address`]: '52:54:00:AA:BB:CC',
    [`${net}/eth0/carrier`]: '1',
    [`${net}/eth0/speed`]: '25000',
    [`${net}/eth0/mtu`]: '9000',
    [`${net}/br0/address`]: '52:54:00:aa:bb:cd',
    [`${net}/br0/speed`]: '-1',
    [`${net}/br0/mtu`]: '1500',
    [`${net}/br0/bridge/bridge_id`]: '8000.525400aabbcd',
    [`${net}/vnet0/address`]: 'fe:54:00:00:00:01',
    [`${net}/vnet0/tun_flags`]: '0x5002',
  });
  await links({ [`${net}/eth0/device`]: '../../../0000:3b:00.0', [`${net}/br0/device`]: 'nonsense' });
  const { interfaces, bridges } = await readInventory(root, new Map([['eth0', ['10.0.0.1/24']]]));
  expect(interfaces).toEqual([
    {
      name: 'br0',
      macAddress: '52:54:00:aa:bb:cd',
      linkUp: false,
      speedMbps: 0,
      mtu: 1500,
      addresses: [],
      pciAddress: '',
    },
    {
      name: 'eth0',
      macAddress: '52:54:00:aa:bb:cc',
      linkUp: true,
      speedMbps: 25_000,
      mtu: 9000,
      addresses: ['10.0.0.1/24'],
      pciAddress: '0000:3b:00.0',
    },
  ]);
  expect(bridges).toEqual([{ name: 'br0', kind: BridgeKind.LINUX }]);
  expect(parseOpenVswitchBridges('br-plant\n\nbr-dmz\n')).toEqual([
    { name: 'br-plant', kind: BridgeKind.OPEN_VSWITCH },
    { name: 'br-dmz', kind: BridgeKind.OPEN_VSWITCH },
  ]);
});

test('KVM needs the flag and the device, and says which is missing', async () => {
  expect((await readKvm(root)).kvmMessage).toContain('neither vmx nor svm');
  await files({ 'dev/kvm': '' });
  expect((await readKvm(root)).kvmUsable).toBe(false);
  await files({ 'proc/cpuinfo': 'flags : fpu svm' });
  expect(await readKvm(root)).toEqual({ kvmUsable: true, kvmMessage: '' });
  await rm(join(root, 'dev/kvm'));
  expect((await readKvm(root)).kvmMessage).toContain('/dev/kvm is missing');
});

test('versions and boot id', async () => {
  await files({
    'proc/sys/kernel/osrelease': '6.1.0-13-amd64',
    'etc/os-release': 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
    'proc/sys/kernel/random/boot_id': '6695eb01-f6a4-4304-89aa-97f2502e193f',
  });
  expect((await readInventory(root, new Map())).versions).toMatchObject({
    kernel: '6.1.0-13-amd64',
    os: 'Debian GNU/Linux 12 (bookworm)',
  });
  expect(await readBootId(root)).toBe('6695eb01-f6a4-4304-89aa-97f2502e193f');
  await expect(readBootId(join(root, 'nowhere'))).rejects.toThrow('boot id');
});

test('parsers take what they do not know', () => {
  expect(parseCpuInfo('')).toEqual({ model: '', vendor: '', flags: [] });
  expect(parseOsRelease("PRETTY_NAME='It''s'", 'NAME')).toBe('');
});
