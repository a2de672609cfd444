// SPDX-License-Identifier: Apache-2.0
import type { DomainObservation } from '../driver/host-driver.ts';

/**
 * What this run of the agent knows of a VM beyond its memory; lost at a restart, which costs time
 * (a shutdown's timeout begins anew, an unknown start is waited for again) but never safety.
 */
export interface VmTrack {
  /** The action in flight; nothing else is done to this VM meanwhile. */
  readonly busy: 'start' | 'destroy' | 'press' | 'grow' | undefined;
  /** Only a listing that began after this step is to be believed: an older one may miss what an action did. */
  readonly listAfter: number;
  /** The newest epoch that this run knows to have been there. */
  readonly seenEpoch: bigint;
  /** Begin of the first listing in a row that missed the started epoch. */
  readonly absentSinceMs: number | undefined;
  /** How the start of the started epoch failed. Definite: the hypervisor said no; else its outcome is unknown. */
  readonly startError: { readonly message: string; readonly definite: boolean } | undefined;
  /** The epoch was started in a former boot: it cannot come up any more. */
  readonly formerBoot: boolean;
  readonly destroy: { readonly epoch: bigint; readonly why: string; readonly done: boolean } | undefined;
  /** The guest was asked to shut down. */
  readonly stop: { readonly epoch: bigint; readonly begunAtMs: number; readonly pressedAtMs: number } | undefined;
  /** What QEMU said of disks that it was asked to grow, by volume id, and of which epoch. Lost at a restart: it is asked again. */
  readonly sizes: { readonly epoch: bigint; readonly bytes: Readonly<Record<string, bigint>> };
  /** After it did not: when to ask again, and why, for people. */
  readonly growAtMs: number;
  readonly growProblem: string;
  /** After a failed destroy: when to try again, how often it failed, and why, for people. */
  readonly retryAtMs: number;
  readonly failures: number;
  readonly problem: string;
}

export const NO_TRACK: VmTrack = {
  busy: undefined,
  listAfter: 0,
  seenEpoch: 0n,
  absentSinceMs: undefined,
  startError: undefined,
  formerBoot: false,
  destroy: undefined,
  stop: undefined,
  sizes: { epoch: 0n, bytes: {} },
  growAtMs: 0,
  growProblem: '',
  retryAtMs: 0,
  failures: 0,
  problem: '',
};

/** The newest listing of domains. */
export interface Observation {
  readonly domains: readonly DomainObservation[];
  /** Order of its begin among the ends of actions. */
  readonly step: number;
  readonly begunAtMs: number;
  /** False when a later attempt to list failed: then it is only the last known picture. */
  readonly fresh: boolean;
}
