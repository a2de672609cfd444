// SPDX-License-Identifier: Apache-2.0
/** What a domain's XML depends on besides its spec: the host it starts on. */
export interface HostFacts {
  /** False means software emulation (TCG). */
  readonly kvmUsable: boolean;
  /** How QEMU reaches Ceph; null when this host has none. */
  readonly rbd: RbdFacts | null;
  /** QEMU's user and group, nobody else's; null: as qemu.conf says. */
  readonly uid: number | null;
  readonly paths: DomainPaths;
  readonly cpus: HostCpus;
}

/** CPUs that exist, ascending. */
export interface HostCpus {
  readonly online: readonly number[];
  /** Kept away from the kernel's scheduler. */
  readonly isolated: readonly number[];
  /** Online CPUs of each NUMA node, by its id. */
  readonly ofNode: ReadonlyMap<number, readonly number[]>;
  /** Placement sees another topology than these (labs). */
  readonly pretended: boolean;
}

export interface RbdFacts {
  /** `address:port`, IPv6 in brackets; the port may be missing. */
  readonly monitors: readonly string[];
  readonly user: string;
  /** Of the libvirt secret that holds the key; the key itself is in no XML, argument or log. */
  readonly secretUuid: string;
}

/** Files of one VM on this host. All absolute. */
export interface DomainPaths {
  readonly consoleSocket: string;
  readonly serialLog: string;
  /** UEFI's variables. */
  readonly nvram: string;
  readonly seedIso: string;
}
