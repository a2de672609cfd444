// SPDX-License-Identifier: Apache-2.0
import type { LaneConfig } from '@busbar/native/lane';

/**
 * What the child that hosts libvirt offers. Both ends import this file; it imports no koffi.
 *
 * Lanes are sets of connections with one call in flight on each, because libvirt keeps the error of
 * a call on its connection. `events` carries nothing but events. `short` reads and flips switches,
 * `long` starts and migrates, `abort` destroys: it must never wait behind what it shall end.
 */
export type LaneName = 'short' | 'long' | 'abort';

/**
 * Connections of each lane, equal to the number of calls that the parent lets in. Four starts at a
 * time fill a host's CPUs; one hung QEMU may occupy one of each lane for a while.
 */
export const LANE_WIDTHS: Readonly<Record<LaneName, number>> = { short: 2, long: 4, abort: 2 };

/** A host runs hundreds of VMs at most; more waiting calls than that mean that nothing moves. */
const QUEUE_LIMIT = 512;

export const LANE_CONFIGS: Readonly<Record<LaneName, LaneConfig>> = {
  short: { concurrency: LANE_WIDTHS.short, queueLimit: QUEUE_LIMIT },
  long: { concurrency: LANE_WIDTHS.long, queueLimit: QUEUE_LIMIT },
  abort: { concurrency: LANE_WIDTHS.abort, queueLimit: QUEUE_LIMIT },
};

/** When the child gives up on the call, in CLOCK_MONOTONIC nanoseconds: one clock for both processes. */
export interface Until {
  readonly untilNs: bigint;
}

export interface ListedDomain {
  readonly uuid: string;
  readonly name: string;
  /** virDomainState and its reason. */
  readonly state: number;
  readonly reason: number;
  /** The element of Busbar's namespace; null when the domain is not Busbar's. */
  readonly metadata: string | null;
}

export interface LibvirtMethods {
  /** Drops what was connected and connects anew. libvirt's and the hypervisor's version numbers. */
  connect(args: Until & { readonly uri: string }): Promise<{ readonly libvirt: number; readonly hypervisor: number }>;
  capabilities(args: Until): Promise<string>;
  /** Defines a secret and gives it its value. */
  setSecret(args: Until & { readonly xml: string; readonly value: Uint8Array }): Promise<null>;
  /** Forgets a secret; one that is not there is success. */
  dropSecret(args: Until & { readonly uuid: string }): Promise<null>;
  /** Who of a range of users may read and write a device file: these and no others. */
  admitToDevice(
    args: Until & {
      readonly path: string;
      readonly users: readonly number[];
      readonly range: { readonly first: number; readonly count: number };
    },
  ): Promise<null>;
  list(args: Until & { readonly metadataUri: string }): Promise<ListedDomain[]>;
  create(args: Until & { readonly xml: string }): Promise<null>;
  /** False when there is no such domain. */
  destroy(args: Until & { readonly uuid: string }): Promise<boolean>;
  /** False when there is no such domain. With `acpiOnly` the guest agent is not tried. */
  shutdown(args: Until & { readonly uuid: string; readonly acpiOnly: boolean }): Promise<boolean>;
  /** The live XML; null when there is no such domain. */
  xml(args: Until & { readonly uuid: string }): Promise<string | null>;
  /** Grows a disk unless it is as large already; how large it is then. `target` as in the XML. Null when there is no such domain. */
  growDisk(
    args: Until & { readonly uuid: string; readonly target: string; readonly sizeBytes: bigint },
  ): Promise<bigint | null>;
  /** Changes devices of a running domain; each XML is one device. False when there is no such domain. */
  updateDevices(args: Until & { readonly uuid: string; readonly devices: readonly string[] }): Promise<boolean>;
}

export type LibvirtEvent =
  /** A connection of the current session ended; all of it is void. */
  | { readonly type: 'closed'; readonly reason: number }
  | { readonly type: 'lifecycle'; readonly uuid: string; readonly event: number; readonly detail: number }
  | { readonly type: 'io-error'; readonly uuid: string; readonly path: string; readonly reason: string }
  /** Something else happened to a domain: look at it. */
  | { readonly type: 'other'; readonly what: 'reboot' | 'watchdog' | 'agent'; readonly uuid: string };
