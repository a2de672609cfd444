// SPDX-License-Identifier: Apache-2.0
import type { HostId, NetworkId, VmId } from '@busbar/core/ids';

/**
 * What placement knows. A snapshot is immutable and complete: the same snapshot and request give
 * the same answer, anywhere. Today's fit looks at memory, vCPUs, labels, networks, pinning and
 * anti-affinity; NUMA nodes, dedicated CPUs, hugepages, devices and N-1 come behind the same interface.
 */
export interface Snapshot {
  readonly hosts: readonly SchedulableHost[];
  readonly policy: PlacementPolicy;
}

export interface SchedulableHost {
  readonly id: HostId;
  /** Empty when VMs may be placed here; else why not, for people. */
  readonly notSchedulable: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly onlineCpus: number;
  readonly memoryBytes: bigint;
  /** Networks whose bridge the host has. */
  readonly networks: ReadonlySet<NetworkId>;
  readonly vms: readonly PlacedVm[];
}

/** A VM that holds resources on a host: running there, or planned and not yet reported. */
export interface PlacedVm {
  readonly id: VmId;
  readonly name: string;
  readonly vcpus: number;
  readonly memoryBytes: bigint;
  readonly antiAffinityGroup: string;
}

export interface PlacementRequest {
  readonly vm: PlacedVm;
  readonly hostSelector: Readonly<Record<string, string>>;
  /** Empty for any host. */
  readonly pinnedHost: string;
  /** Best first. */
  readonly preferredHosts: readonly string[];
  readonly networks: readonly { readonly id: NetworkId; readonly name: string }[];
}

export interface PlacementPolicy {
  /** Memory of each host that VMs never get: kernel, Ceph OSD and monitor, etcd, Busbar. */
  readonly hostReservedMemoryBytes: bigint;
  /** QEMU's own memory per VM, on top of the guest's. */
  readonly vmOverheadBytes: bigint;
  /** vCPUs per host CPU that shared VMs may add up to. */
  readonly vcpuOvercommit: number;
}

export const DEFAULT_POLICY: PlacementPolicy = {
  // A Ceph OSD at its smallest sensible target (2 GiB), monitor, etcd, libvirt and Busbar: 4 GiB on a production host.
  hostReservedMemoryBytes: 4n * 1024n ** 3n,
  // Page tables, device state and QEMU's heap of a small guest: 60 to 90 MiB measured with virtio devices and RBD.
  vmOverheadBytes: 96n * 1024n ** 2n,
  // SCADA servers idle most of the time; Nova ships 4.0 since 2023.2 as well.
  vcpuOvercommit: 4,
};

export interface HostVerdict {
  readonly host: HostId;
  readonly fits: boolean;
  /** For a refusal: one line per checker that refused, beginning with the checker's name. */
  readonly reasons: readonly string[];
  /** Higher is better; 0 for hosts that do not fit. */
  readonly score: number;
}

export interface Placement {
  readonly host: HostId;
  readonly verdicts: readonly HostVerdict[];
}

export interface Refusal {
  readonly verdicts: readonly HostVerdict[];
}
