// SPDX-License-Identifier: Apache-2.0
import type { ObservedPlacement } from '@busbar/proto/gen/busbar/v1/vm';
import type { LatencyRange } from './effects.ts';

/** What a simulated machine does wrong. Plain data that a test changes at any time. */
export interface SimFaults {
  /**
   * down: calls are refused at once. hung: calls end at the driver's deadline. Domains go on in
   * both. Set through `SimMachine.setHypervisor`, which also wakes whoever has to notice.
   */
  hypervisor: 'up' | 'down' | 'hung';
  /** The next starts fail with these messages, first in first out. */
  failNextStarts: string[];
  /** Starts do not come back; the domain stays `starting` until it is destroyed. */
  hangStarts: boolean;
  /** Each domain that starts from now on crashes after this time; null for never. */
  crashAfterMs: number | null;
  /** Guests that do not react to the power button: all, or those of these VM ids. */
  ignoreShutdown: boolean | ReadonlySet<string>;
  /** VM ids whose domains the hypervisor has lost: not listed, no events, no calls reach them. Their QEMUs run on. */
  lost: ReadonlySet<string>;
  /** VM ids whose QEMUs stand still (SIGSTOP): listed as running, and what needs their answer has none. */
  frozen: ReadonlySet<string>;
  /** Nothing is told of what happens to domains, neither as a hint nor as an end; who looks sees it. */
  loseEvents: boolean;
  /** What somebody changed by hand of what these VMs get, by VM id. */
  tampered: ReadonlyMap<string, Partial<ObservedPlacement>>;
}

export function noFaults(): SimFaults {
  return {
    hypervisor: 'up',
    failNextStarts: [],
    hangStarts: false,
    crashAfterMs: null,
    ignoreShutdown: false,
    lost: new Set(),
    frozen: new Set(),
    loseEvents: false,
    tampered: new Map(),
  };
}

/** How long things take. The defaults are of the order measured with libvirt 9.0 and KVM guests. */
export interface SimLatencies {
  /** A driver's connection to the hypervisor. */
  readonly connect: LatencyRange;
  /** A call that reads or flips a switch. */
  readonly call: LatencyRange;
  readonly start: LatencyRange;
  readonly destroy: LatencyRange;
  /** From the power button until the guest has powered off. */
  readonly guestShutdown: LatencyRange;
  /** From powered off until QEMU is gone. */
  readonly teardown: LatencyRange;
  /** From a change until its hint. */
  readonly hint: LatencyRange;
}

export const DEFAULT_LATENCIES: SimLatencies = {
  connect: [5, 50],
  call: [1, 10],
  start: [300, 1500],
  destroy: [20, 200],
  guestShutdown: [1000, 8000],
  teardown: [5, 50],
  hint: [0, 5],
};
