// SPDX-License-Identifier: Apache-2.0
import {
  type Bridge,
  BridgeKind,
  type HostInventory,
  type NumaNode,
  type PciDevice,
} from '@busbar/proto/gen/busbar/v1/host';

const MIB = 1024n * 1024n;
const GIB = 1024n * MIB;

export interface SimTopology {
  /** [1] */
  readonly numaNodes?: number;
  /** Cores of each NUMA node [8]. */
  readonly coresPerNumaNode?: number;
  /** Hardware threads of each core [1]. */
  readonly threadsPerCore?: number;
  /** Of the whole host [64 GiB]. */
  readonly memoryBytes?: bigint;
  /** [none] */
  readonly isolatedCpus?: readonly number[];
  /** [none] */
  readonly pciDevices?: readonly PciDevice[];
  /** 2 MiB hugepages of each NUMA node [0]. */
  readonly hugepagesPerNumaNode?: bigint;
  /** [a Linux bridge `br0`] */
  readonly bridges?: readonly Bridge[];
  /** [10.0.0.1] */
  readonly managementAddress?: string;
  readonly storageAddress?: string;
  /** [true] */
  readonly kvmUsable?: boolean;
}

/**
 * The inventory of a host with this topology. CPUs are numbered as Linux does on x86: first one
 * thread of every core, node after node, then the second threads.
 */
export function simInventory(topology: SimTopology = {}): HostInventory {
  const nodes = topology.numaNodes ?? 1;
  const cores = topology.coresPerNumaNode ?? 8;
  const threads = topology.threadsPerCore ?? 1;
  const memoryBytes = topology.memoryBytes ?? 64n * GIB;
  const managementAddress = topology.managementAddress ?? '10.0.0.1';
  const kvmUsable = topology.kvmUsable ?? true;
  const numaNodes = Array.from({ length: nodes }, (_, id): NumaNode => {
    const coreCpus = Array.from({ length: cores }, (_, core) =>
      Array.from({ length: threads }, (_, thread) => thread * nodes * cores + id * cores + core),
    );
    return {
      id,
      cpus: coreCpus.flat().toSorted((a, b) => a - b),
      smtSiblingSets: coreCpus.map((set) => set.join(',')),
      memoryBytes: memoryBytes / BigInt(nodes),
      hugepages: [
        {
          pageSizeBytes: 2n * MIB,
          total: topology.hugepagesPerNumaNode ?? 0n,
          free: topology.hugepagesPerNumaNode ?? 0n,
        },
      ],
      distances: Array.from({ length: nodes }, (_, other) => (other === id ? 10 : 21)),
    };
  });
  return {
    managementAddress,
    storageAddress: topology.storageAddress ?? managementAddress,
    numaNodes,
    cpu: {
      model: 'Simulated CPU',
      vendor: 'GenuineIntel',
      libvirtModel: 'Cascadelake-Server',
      features: ['lm', 'vmx'],
      onlineCpus: nodes * cores * threads,
    },
    isolatedCpus: [...(topology.isolatedCpus ?? [])],
    memoryBytes,
    pciDevices: [...(topology.pciDevices ?? [])],
    interfaces: [
      {
        name: 'eth0',
        macAddress: '02:00:00:00:00:01',
        linkUp: true,
        speedMbps: 10_000,
        mtu: 1500,
        addresses: [`${managementAddress}/24`],
        pciAddress: '',
      },
    ],
    bridges: [...(topology.bridges ?? [{ name: 'br0', kind: BridgeKind.LINUX }])],
    kvmUsable,
    kvmMessage: kvmUsable ? '' : 'simulated without KVM',
    versions: { agent: '', kernel: '6.1.0-sim', libvirt: '9.0.0', qemu: '7.2.0', os: 'Simulated Linux' },
    pretendedTopology: undefined,
  };
}
