// SPDX-License-Identifier: Apache-2.0

import { realCpu } from '@busbar/core/cpu-list';
import { BusbarError } from '@busbar/core/errors';
import type { DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { CpuPolicy, Hugepages, type ObservedPlacement, type Placement } from '@busbar/proto/gen/busbar/v1/vm';
import type { HostCpus } from './facts.ts';

/** What a domain gets of its host: placement's decision, brought onto the CPUs that exist. Pure. */
export interface Tuning {
  /** Of each vCPU its CPU; empty when they float. */
  readonly vcpuCpus: readonly number[];
  /** CPUs that all threads without CPUs of their own float over; empty: all of the host. */
  readonly floatCpus: readonly number[];
  /** Empty: they float. */
  readonly emulatorCpus: readonly number[];
  /** Of each I/O thread; an empty list floats. */
  readonly ioThreadCpus: readonly (readonly number[])[];
  /** Of each of the guest's cells, in order: the NUMA node that its memory is on. Empty: the guest sees no NUMA. */
  readonly cells: readonly { readonly vcpus: number; readonly memoryBytes: bigint; readonly numaNode: number }[];
  /** NUMA nodes that all memory is on, ascending; empty: anywhere. */
  readonly numaNodes: readonly number[];
  /** SCHED_FIFO; 0 for the normal scheduler. */
  readonly fifoPriority: number;
  /** Bytes; 0 for normal pages. */
  readonly pageBytes: bigint;
  readonly memoryLocked: boolean;
  /** Addresses of PCI devices. */
  readonly devices: readonly string[];
}

const PAGE_BYTES: Readonly<Record<Hugepages, bigint>> = {
  [Hugepages.HUGEPAGES_UNSPECIFIED]: 0n,
  [Hugepages.UNRECOGNIZED]: 0n,
  [Hugepages.HUGEPAGES_NONE]: 0n,
  [Hugepages.HUGEPAGES_2M]: 2n * 1024n ** 2n,
  [Hugepages.HUGEPAGES_1G]: 1024n ** 3n,
};

export function tuningOf(spec: DomainSpec, host: HostCpus): Tuning {
  const { placement } = spec;
  if (placement !== undefined) assertFits(spec, placement);
  const real = (cpu: number) => (host.pretended ? realCpu(cpu, host.online) : cpu);
  const vcpuCpus = (placement?.cells ?? []).flatMap(({ cpus }) => cpus.map(real));
  const emulatorCpus = distinct((placement?.emulatorCpus ?? []).map(real));
  const own = new Set(vcpuCpus);
  // The threads around dedicated vCPUs stay off them, and off the CPUs that are for realtime only.
  const others = host.online.filter((cpu) => !own.has(cpu) && !host.isolated.includes(cpu));
  const around = emulatorCpus.length > 0 ? emulatorCpus : vcpuCpus.length > 0 ? others : [];
  const ioThreadCpus = Array.from({ length: spec.ioThreads }, (_, thread) => {
    const cpu = placement?.ioThreadCpus[thread];
    return cpu === undefined ? around : [real(cpu)];
  });
  // A pretended topology has neither these NUMA nodes nor their pages; FIFO threads that share the few CPUs that exist with
  // everything else would stop the host; and a container may not lock memory.
  const exists = !host.pretended;
  const numaNodes = exists ? distinct((placement?.cells ?? []).map(({ numaNode }) => numaNode)) : [];
  return {
    vcpuCpus,
    // Memory is on these nodes; so vCPUs that float stay there, too.
    floatCpus: vcpuCpus.length > 0 || host.ofNode.size < 2 ? [] : cpusOf(numaNodes, host),
    emulatorCpus: around,
    ioThreadCpus,
    cells: spec.guestNuma ? (placement?.cells ?? []) : [],
    numaNodes,
    fifoPriority: exists && vcpuCpus.length > 0 && spec.cpuPolicy === CpuPolicy.REALTIME ? spec.realtimePriority : 0,
    pageBytes: exists ? PAGE_BYTES[spec.hugepages] : 0n,
    memoryLocked: exists && spec.memoryLocked,
    devices: (placement?.devices ?? []).map(({ address }) => address),
  };
}

function cpusOf(numaNodes: readonly number[], host: HostCpus): number[] {
  const all = numaNodes.flatMap((id) => host.ofNode.get(id) ?? []);
  return distinct(all.filter((cpu) => !host.isolated.includes(cpu)));
}

/** The VM was changed between the decision and the start: the next start decides anew. */
function assertFits(spec: DomainSpec, placement: Placement): void {
  const vcpus = placement.cells.reduce((sum, cell) => sum + cell.vcpus, 0);
  const bytes = placement.cells.reduce((sum, cell) => sum + cell.memoryBytes, 0n);
  const pins = placement.cells.reduce((sum, cell) => sum + cell.cpus.length, 0);
  const pinned = spec.cpuPolicy === CpuPolicy.DEDICATED || spec.cpuPolicy === CpuPolicy.REALTIME;
  if (vcpus === spec.vcpus && bytes === spec.memoryBytes && pins === (pinned ? vcpus : 0)) return;
  throw new BusbarError({
    kind: 'precondition',
    reason: 'PLACEMENT_OUTDATED',
    message: `it was placed with ${vcpus} vCPUs (${pins} pinned) and ${bytes} bytes, and changed since`,
  });
}

function distinct(numbers: readonly number[]): number[] {
  return [...new Set(numbers)].toSorted((a, b) => a - b);
}

/** As the hypervisor would tell it. */
export function observationOf(tuning: Tuning, list: (cpus: readonly number[]) => string): ObservedPlacement {
  return {
    vcpuCpus: tuning.vcpuCpus.map((cpu) => list([cpu])),
    emulatorCpus: list(tuning.emulatorCpus),
    ioThreadCpus: tuning.ioThreadCpus.some((cpus) => cpus.length > 0) ? tuning.ioThreadCpus.map(list) : [],
    numaNodes: [...tuning.numaNodes],
    realtimePriority: tuning.fifoPriority,
    hugepageBytes: tuning.pageBytes,
    devices: [...tuning.devices],
  };
}
