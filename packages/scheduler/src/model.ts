// SPDX-License-Identifier: Apache-2.0
import type { HostId, NetworkId, VmId } from '@busbar/core/ids';

/**
 * What placement knows and answers. A snapshot is immutable and complete: the same snapshot and request give the same
 * answer, anywhere. Memory is counted in MiB, the smallest amount that a VM can ask for, so that it fits a number.
 */

// ---------------------------------------------------------------------------------------------------------------- hosts

export interface Snapshot {
  readonly hosts: readonly Host[];
  /** VMs that hold resources: they run, or were told to start and have not reported. */
  readonly placed: readonly PlacedVm[];
  readonly policy: PlacementPolicy;
}

export interface Host {
  readonly id: HostId;
  /** Empty when VMs may be placed here; else why not, for people. VMs that are here keep their resources. */
  readonly notSchedulable: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly domains: FailureDomains;
  /** Ascending by id; at least one. */
  readonly numaNodes: readonly NumaNode[];
  /** CPUs that VMs never get: the kernel, Ceph, etcd and Busbar run there. */
  readonly reservedCpus: readonly number[];
  /** CPUs kept away from the kernel's scheduler (isolcpus): only realtime VMs get them. */
  readonly isolatedCpus: readonly number[];
  /** Memory of this host that VMs never get, instead of the policy's. */
  readonly reservedMemoryMib?: number;
  /** Devices that may be passed through. */
  readonly devices: readonly Device[];
  /** Networks whose bridge the host has. */
  readonly networks: ReadonlySet<NetworkId>;
}

export interface NumaNode {
  readonly id: number;
  /** CPUs online, ascending. */
  readonly cpus: readonly number[];
  /** Hardware threads that share a core, for cores with more than one; CPUs not named are cores of their own. */
  readonly smtSiblings: readonly (readonly number[])[];
  /** All memory of the node, hugepage pools included. */
  readonly memoryMib: number;
  /** Pages in the pools, used or not, by page size. */
  readonly hugepages: readonly { readonly sizeMib: number; readonly pages: number }[];
  /** SLIT distances to all nodes in ascending order of id (10 = local); empty when unknown. */
  readonly distances: readonly number[];
}

export interface Device {
  /** domain:bus:slot.function. */
  readonly address: string;
  /** What VMs ask for, such as "process-bus-nic". */
  readonly class: string;
  /** null when the platform does not say. */
  readonly numaNode: number | null;
}

/** Where a failure takes more than one host. Empty: not known, then the host shares it with nobody. */
export interface FailureDomains {
  readonly rack: string;
  readonly powerFeed: string;
  readonly ringSegment: string;
}

export const DOMAIN_KEYS = ['rack', 'powerFeed', 'ringSegment'] as const satisfies readonly (keyof FailureDomains)[];
export const NO_DOMAINS: FailureDomains = { rack: '', powerFeed: '', ringSegment: '' };

// ------------------------------------------------------------------------------------------------------------------ VMs

/**
 * shared: floats over the CPUs that nobody has for itself, over-committed. dedicated: one host CPU for each vCPU.
 * realtime: dedicated, of the isolated CPUs only, with FIFO priority; emulator and I/O threads get CPUs of their own.
 */
export type CpuPolicy = 'shared' | 'dedicated' | 'realtime';
/**
 * prefer: any free thread, those of half-used cores first. isolate: each vCPU has a core, whose other threads stay empty.
 * require: vCPUs fill cores together and share them with nobody, so that with an odd number a thread stays empty; needs a host
 * with SMT.
 */
export type SmtPolicy = 'prefer' | 'isolate' | 'require';
/**
 * none: the guest sees no NUMA; vCPUs and memory may be shared out in any parts where no node takes all. automatic: as many
 * cells as it takes, one if possible, as equal as whole vCPUs and pages allow, each with at least one of both. explicit: the
 * cells as given, each on a NUMA node of its own.
 */
export type GuestNuma = 'none' | 'automatic' | 'explicit';
/**
 * required: on one of the VM's own NUMA nodes, all of a request on the same; on a host with several nodes, a device of unknown
 * node is on none of them. preferred: there if possible. none: anywhere on the host.
 */
export type DeviceNuma = 'required' | 'preferred' | 'none';
export type HugepageMib = 0 | 2 | 1024;

export interface GuestCell {
  readonly vcpus: number;
  readonly memoryMib: number;
}

export interface DeviceRequest {
  readonly class: string;
  readonly count: number;
  readonly numa: DeviceNuma;
}

/** together: on one host. apart: never on one host. pair: never on one host, power feed or ring segment. */
export type GroupRuleKind = 'together' | 'apart' | 'pair';

export interface GroupRule {
  /** VMs with the same word are in the group. */
  readonly group: string;
  readonly kind: GroupRuleKind;
  /** Soft rules are kept when they can be. Between two members, the rule is hard when either of them holds it hard. */
  readonly soft: boolean;
}

/** What a VM needs of a host. Everything that makes two VMs interchangeable for placement is in here. */
export interface Needs {
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly cpuPolicy: CpuPolicy;
  readonly smt: SmtPolicy;
  /** I/O threads: a realtime VM gets a CPU for each. */
  readonly ioThreads: number;
  readonly guestNuma: GuestNuma;
  /** For explicit guest NUMA; vCPUs and memory add up to the VM's. */
  readonly cells: readonly GuestCell[];
  /** The whole VM on one NUMA node, or refused. Otherwise one node is preferred. */
  readonly oneNodeRequired: boolean;
  /** 0: normal pages. */
  readonly hugepageMib: HugepageMib;
  readonly devices: readonly DeviceRequest[];
  readonly hostSelector: Readonly<Record<string, string>>;
  readonly networks: readonly { readonly id: NetworkId; readonly name: string }[];
}

export interface Vm extends Needs {
  readonly id: VmId;
  readonly name: string;
  readonly rules: readonly GroupRule[];
  /** Empty for any host. */
  readonly pinnedHost: string;
  /** Best first. */
  readonly preferredHosts: readonly string[];
  /** Restarted elsewhere when its host dies: counts for N-1. */
  readonly ha: boolean;
  /** 0 to 1000; higher is placed and restarted first. */
  readonly priority: number;
}

/** A VM and what it holds. */
export interface PlacedVm {
  readonly vm: Vm;
  readonly placement: Placement;
}

// -------------------------------------------------------------------------------------------------------------- answers

/** Exactly what a VM gets. */
export interface Placement {
  readonly host: HostId;
  /** The VM's parts, in the order of the guest's cells. */
  readonly cells: readonly PlacedCell[];
  /** Of a realtime VM: CPUs of the emulator, on the node of the first cell, isolated only where VMs can have no others. Empty: on the host's shared and reserved CPUs. */
  readonly emulatorCpus: readonly number[];
  /** Of a realtime VM: a CPU for each I/O thread. Empty: as the emulator. */
  readonly ioThreadCpus: readonly number[];
  readonly devices: readonly PlacedDevice[];
}

export interface PlacedCell {
  readonly numaNode: number;
  readonly vcpus: number;
  /** The host CPU of each vCPU of this cell, in order; empty for a shared VM, which floats over the shared CPUs of the node. */
  readonly cpus: readonly number[];
  readonly memoryMib: number;
}

export interface PlacedDevice {
  readonly class: string;
  readonly address: string;
  readonly numaNode: number | null;
}

/** What one host says to a request. */
export interface HostVerdict {
  readonly host: HostId;
  readonly fits: boolean;
  /** Of a refusal: every checker that refused, with its numbers. */
  readonly refusals: readonly CheckerRefusal[];
  /** Of a host that fits: what its score is made of; the least sum wins. */
  readonly score: readonly ScorePart[];
}

export interface CheckerRefusal {
  readonly checker: CheckerName;
  /** With its numbers, for people: "NUMA node 1: needs 4 isolated CPUs, 3 free: 5, 7, 9". */
  readonly reason: string;
}

/** In the order in which an engineer would ask. */
export const CHECKER_NAMES = [
  'state',
  'pinned-host',
  'host-selector',
  'network',
  'together',
  'apart',
  'pair',
  'cpu',
  'smt',
  'memory',
  'hugepages',
  'device',
  'numa',
  'n-1',
] as const;
export type CheckerName = (typeof CHECKER_NAMES)[number];

export interface ScorePart {
  readonly name: string;
  readonly value: number;
}

export interface Refusal {
  /** One line for each host, or for each kind of refusal when there are many hosts. True as long as nothing was taken or released since. */
  readonly summary: string;
}

// --------------------------------------------------------------------------------------------------------------- policy

export type SurvivePolicy = 'off' | 'any-one-host' | 'any-one-failure-domain';

export interface PlacementPolicy {
  /** Memory of each host that VMs never get: kernel, Ceph OSD and monitor, etcd, Busbar. */
  readonly hostReservedMemoryMib: number;
  /** QEMU's own memory per VM, on top of the guest's. */
  readonly vmOverheadMib: number;
  /** vCPUs of shared VMs per CPU that nobody has for itself. */
  readonly vcpuOvercommit: number;
  /** pack: keep empty hosts empty. spread: even load. */
  readonly prefer: 'pack' | 'spread';
  /**
   * What a new VM must not endanger: that every HA VM still has a place after this loss, all of them at once, with their hard
   * needs and rules, while nothing else moves. There, a VM may be on several NUMA nodes where that makes room for others. A VM that
   * is pinned to its host has no other place: with HA it is refused.
   */
  readonly survive: SurvivePolicy;
}

export const DEFAULT_POLICY: PlacementPolicy = {
  // A Ceph OSD at its smallest sensible target (2 GiB), monitor, etcd, libvirt and Busbar: 4 GiB on a production host.
  hostReservedMemoryMib: 4096,
  // Page tables, device state and QEMU's heap of a small guest: 60 to 90 MiB measured with virtio devices and RBD.
  vmOverheadMib: 96,
  // SCADA servers idle most of the time; Nova ships 4.0 since 2023.2 as well.
  vcpuOvercommit: 4,
  // Three hosts of one site have no empty host to keep; even load leaves each guest most of what it does not pay for.
  prefer: 'spread',
  // A cluster whose HA VMs do not all fit on the hosts that are left is no HA cluster, but nobody may be surprised by a
  // refusal when one host of three is down: opt in.
  survive: 'off',
};
