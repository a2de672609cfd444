// SPDX-License-Identifier: Apache-2.0
import type { Epoch, VmId } from '@busbar/core/ids';
import type { DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import type { ObservedPlacement } from '@busbar/proto/gen/busbar/v1/vm';
import type { UidPool } from '../config/uid-pool.ts';
import type { PretendTopology } from '../inventory/pretend.ts';

/**
 * What the agent needs of a hypervisor. Implementations: libvirt (through koffi in a child
 * process) and sim. Both pass conformance.ts.
 *
 * Every call ends within the driver's deadline with a BusbarError whose reason is one of
 * HOST_DRIVER_REASONS. Domains are transient: nothing starts by itself after a reboot. The VM's id
 * is the domain's UUID; id, epoch, name and spec revision are in the domain's metadata, so that a
 * restarted agent re-adopts what runs.
 */
export interface HostDriver {
  readonly kind: 'libvirt' | 'sim';
  /** Connects in the background and keeps reconnecting. Calls made while not connected reject with HYPERVISOR_UNAVAILABLE. */
  start(): void;
  /** Hardware and software of the host as it is now. Works without the hypervisor (its versions are then empty). */
  inventory(): Promise<HostInventory>;
  /**
   * Every domain that carries Busbar's metadata, also one whose start has not returned yet (paused, "starting up").
   * Rejects when the hypervisor does not answer: an empty list means none.
   */
  listDomains(): Promise<readonly DomainObservation[]>;
  /**
   * Which of these VMs have a QEMU now, whatever the hypervisor says; asked of the kernel, so it also works while `health`
   * is bad. A hypervisor can lose a domain whose QEMU runs on and writes: only what is missing here is certainly gone.
   * Rejects when that is not certain.
   */
  haveProcess(vmIds: readonly VmId[]): Promise<ReadonlySet<VmId>>;
  /**
   * Starts a domain for an epoch. Refuses DOMAIN_EXISTS when one of that id is there (any epoch, also a QEMU that libvirt
   * lost), and throws DOMAIN_START_FAILED with the reason from QEMU's log, also when it took too long and was undone.
   * When the outcome is unknown (any HYPERVISOR_ reason), look at listDomains.
   */
  startDomain(request: StartRequest): Promise<void>;
  /** Presses the power button (guest agent first where connected). Succeeds when asked, not when done; absent domain: succeeds. */
  shutdownDomain(vmId: VmId): Promise<void>;
  /**
   * Takes the power. Succeeds when the domain is gone or was not there. Ends QEMU even if it or libvirt does not react
   * (SIGKILL), so it also works while `health` is bad. Rejects only when QEMU hangs in the kernel and did not die.
   */
  destroyDomain(vmId: VmId): Promise<void>;
  /** Raises or cuts every NIC link of a domain. Needs the hypervisor and a QEMU that answers: who must be sure destroys instead. */
  setLinks(vmId: VmId, up: boolean): Promise<void>;
  /**
   * Has QEMU grow a disk to at least so many bytes, and returns what it has then. Never shrinks. QEMU owns the image's lock,
   * so nothing is taken from it. HYPERVISOR_TIMEOUT when QEMU does not answer: it may then still do it later, which is no
   * harm. DOMAIN_NOT_FOUND also when the domain has no such disk.
   */
  growDisk(vmId: VmId, disk: { readonly volumeId: string; readonly sizeBytes: bigint }): Promise<bigint>;
  /** Called when something may have changed (events are hints: the agent lists again). */
  onHint(listener: () => void): Disposable;
  /**
   * Ends seen since the last call, each told once; a best effort (an end while the agent was down is only seen by listing).
   * A late event may name a newer epoch that lives: believe an end only if a listing that began afterwards lacks the epoch.
   */
  takeEnds(): readonly DomainEnd[];
  /** Whether the hypervisor answers now, and if not, why. */
  health(): { readonly healthy: boolean; readonly message: string };
  /**
   * Opens the serial console. Several may be open at once; each gets all output from now on. Output ends when the signal
   * aborts, on close and with the domain; it throws CONSOLE_UNAVAILABLE when the reader is a megabyte behind.
   */
  openConsole(vmId: VmId, signal: AbortSignal): Promise<ConsoleLink>;
  /**
   * The serial log since the last start, beginning `tailBytes` before its end. With `follow` it goes on until aborted, across
   * the next starts on this host. It outlives the domain; DOMAIN_NOT_FOUND when the VM never ran here.
   */
  readSerialLog(
    vmId: VmId,
    options: { readonly tailBytes: number; readonly follow: boolean; readonly signal: AbortSignal },
  ): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/** Where the real driver finds and leaves things. All paths absolute. */
export interface HostDriverConfig {
  /** libvirt's, e.g. `qemu:///system`. */
  readonly uri: string;
  /** UEFI variables and cloud-init disks; kept across reboots. */
  readonly stateDir: string;
  /** Console sockets; may vanish with a reboot. At most 62 characters. */
  readonly runDir: string;
  /** Serial logs. */
  readonly logDir: string;
  /** How QEMU reaches Ceph; null when this host has none. */
  readonly rbd: {
    readonly monitors: readonly string[];
    /** For starts that bring no key of their own. The file is a keyring or holds just the key. */
    readonly shared: { readonly user: string; readonly keyFile: string } | null;
  } | null;
  /** Each QEMU runs as a user of these that nobody else has. [as qemu.conf says] */
  readonly uidPool?: UidPool | null;
  /** The shared directory that disks in files are in; undefined in tests, which put them anywhere. */
  readonly dir?: string;
  /** What the inventory shows instead of the host's own CPUs and NUMA nodes (labs). [its own] */
  readonly pretendTopology?: PretendTopology | undefined;
}

export interface StartRequest {
  readonly vmId: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly domain: DomainSpec;
}

export interface DomainObservation {
  readonly vmId: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly specRevision: bigint;
  readonly state: 'running' | 'paused' | 'shutting-down';
  /** Why it is paused, in words; empty otherwise. */
  readonly message: string;
  /** What the hypervisor gives it; may be some minutes old. Undefined while it was not read. */
  readonly placement: ObservedPlacement | undefined;
}

export interface ConsoleLink {
  readonly output: AsyncIterable<Uint8Array>;
  write(input: Uint8Array): Promise<void>;
  close(): void;
}

/** How a domain ended, when the driver saw it: reported with the hint that follows. */
export interface DomainEnd {
  readonly vmId: VmId;
  readonly epoch: Epoch;
  readonly reason: 'guest-shutdown' | 'destroyed' | 'crashed';
  readonly message: string;
}

export const HOST_DRIVER_REASONS = {
  hypervisorUnavailable: 'HYPERVISOR_UNAVAILABLE',
  hypervisorTimeout: 'HYPERVISOR_TIMEOUT',
  domainExists: 'DOMAIN_EXISTS',
  domainNotFound: 'DOMAIN_NOT_FOUND',
  domainStartFailed: 'DOMAIN_START_FAILED',
  consoleUnavailable: 'CONSOLE_UNAVAILABLE',
} as const;
