// SPDX-License-Identifier: Apache-2.0
/** Hosts and VMs for tests, benchmarks and examples: what is not said is plain. */
import type { HostId, NetworkId, VmId } from '@busbar/core/ids';
import {
  DEFAULT_POLICY,
  type Device,
  type Host,
  NO_DOMAINS,
  type NumaNode,
  type PlacementPolicy,
  type Vm,
} from '../model.ts';

export interface HostShape {
  /** NUMA nodes, all alike. */
  readonly nodes?: number;
  /** Cores of each node. */
  readonly cores?: number;
  /** Threads of each core; siblings are numbered as Linux does: all first threads of the host, then all second ones. */
  readonly threads?: 1 | 2;
  /** Memory of each node. */
  readonly memoryMib?: number;
  readonly pages2m?: number;
  readonly pages1g?: number;
  /** Of each node, this many of its last cores are isolated. */
  readonly isolatedCores?: number;
  readonly reservedCpus?: readonly number[];
  readonly devices?: readonly Device[];
  readonly rest?: Partial<Host>;
}

export function host(id: string, shape: HostShape = {}): Host {
  const {
    nodes = 1,
    cores = 8,
    threads = 1,
    memoryMib = 32 * 1024,
    pages2m = 0,
    pages1g = 0,
    isolatedCores = 0,
  } = shape;
  const firsts = (node: number) => Array.from({ length: cores }, (_, i) => node * cores + i);
  const siblings = (cpu: number) => (threads === 2 ? [cpu, cpu + nodes * cores] : [cpu]);
  const numaNodes = Array.from(
    { length: nodes },
    (_, node): NumaNode => ({
      id: node,
      cpus: firsts(node)
        .flatMap(siblings)
        .toSorted((a, b) => a - b),
      smtSiblings: threads === 2 ? firsts(node).map(siblings) : [],
      memoryMib,
      hugepages: [
        { sizeMib: 2, pages: pages2m },
        { sizeMib: 1024, pages: pages1g },
      ],
      distances: Array.from({ length: nodes }, (_, other) => (other === node ? 10 : 21)),
    }),
  );
  return {
    id: id as HostId,
    notSchedulable: '',
    labels: {},
    domains: NO_DOMAINS,
    numaNodes,
    reservedCpus: shape.reservedCpus ?? [],
    isolatedCpus: Array.from({ length: nodes }, (_, node) =>
      firsts(node)
        .slice(cores - isolatedCores)
        .flatMap(siblings),
    )
      .flat()
      .toSorted((a, b) => a - b),
    reservedMemoryMib: 0,
    devices: shape.devices ?? [],
    networks: new Set<NetworkId>(),
    ...shape.rest,
  };
}

export function vm(name: string, rest: Partial<Omit<Vm, 'id' | 'name'>> = {}): Vm {
  return {
    id: name as VmId,
    name,
    vcpus: 1,
    memoryMib: 1024,
    cpuPolicy: 'shared',
    smt: 'prefer',
    ioThreads: 0,
    guestNuma: 'none',
    cells: [],
    oneNodeRequired: false,
    hugepageMib: 0,
    devices: [],
    hostSelector: {},
    networks: [],
    rules: [],
    pinnedHost: '',
    preferredHosts: [],
    ha: false,
    priority: 0,
    ...rest,
  };
}

/** Plain numbers: nothing is kept for the host, a VM costs what it says, one vCPU is one CPU. */
export const PLAIN: PlacementPolicy = {
  ...DEFAULT_POLICY,
  hostReservedMemoryMib: 0,
  vmOverheadMib: 0,
  vcpuOvercommit: 1,
  prefer: 'pack',
};
