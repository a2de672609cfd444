// SPDX-License-Identifier: Apache-2.0
// The benchmark's hosts and VMs in the scheduler's words.
import type { HostId, VmId } from '@busbar/core/ids';
import {
  DEFAULT_POLICY,
  type GuestCell,
  type Host,
  NO_DOMAINS,
  type NumaNode,
  type PlacementPolicy,
  type Vm,
} from '@busbar/scheduler/model';
import type { Capacity, Flavour } from '../workload/flavour.ts';

/** Nothing held back and nothing over-committed, as for the peers. Their hosts have no Ceph and their VMs no QEMU. */
export const BARE_POLICY: PlacementPolicy = {
  ...DEFAULT_POLICY,
  hostReservedMemoryMib: 0,
  vmOverheadMib: 0,
  vcpuOvercommit: 1,
  // The goal of these rows is the most VMs, not the least load.
  prefer: 'pack',
};

export interface NodeShape {
  readonly cpus: number;
  readonly threadsPerCore: 1 | 2;
  readonly memoryMib: number;
  readonly hugepages: NumaNode['hugepages'];
}

export function hostOf(index: number, nodes: readonly NodeShape[]): Host {
  let cpu = 0;
  return {
    id: `host-${String(index).padStart(4, '0')}` as HostId,
    notSchedulable: '',
    labels: {},
    domains: NO_DOMAINS,
    numaNodes: nodes.map(({ cpus: count, threadsPerCore, memoryMib, hugepages }, id) => {
      const cpus = Array.from({ length: count }, () => cpu++);
      const cores = Array.from({ length: count / threadsPerCore }, (_, core) =>
        cpus.slice(core * threadsPerCore, (core + 1) * threadsPerCore),
      );
      return { id, cpus, smtSiblings: threadsPerCore > 1 ? cores : [], memoryMib, hugepages, distances: [] };
    }),
    reservedCpus: [],
    isolatedCpus: [],
    devices: [],
    networks: new Set(),
  };
}

export function hostsOf(count: number, nodes: readonly NodeShape[]): Host[] {
  return Array.from({ length: count }, (_, index) => hostOf(index, nodes));
}

/** One NUMA node of single threads and normal pages: what hail sees of a host. */
export function plainNode({ cpus, memoryMib }: Capacity): NodeShape {
  return { cpus, threadsPerCore: 1, memoryMib, hugepages: [] };
}

/** CPUs and memory, and nothing else: what hail can be asked for. */
export function plainVm(name: string, { vcpus, memoryMib }: Flavour): Vm {
  return {
    id: name as VmId,
    name,
    vcpus,
    memoryMib,
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
    ha: true,
    priority: 0,
  };
}

/** Each vCPU has a CPU for itself, and the guest sees its cells. */
export function pinnedVm(name: string, cells: readonly GuestCell[], needs: Partial<Vm> = {}): Vm {
  const vcpus = cells.reduce((sum, cell) => sum + cell.vcpus, 0);
  const memoryMib = cells.reduce((sum, cell) => sum + cell.memoryMib, 0);
  return {
    ...plainVm(name, { vcpus, memoryMib }),
    cpuPolicy: 'dedicated',
    guestNuma: 'explicit',
    cells,
    ...needs,
  };
}
