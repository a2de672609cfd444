// SPDX-License-Identifier: Apache-2.0
/** A size of VM. */
export interface Flavour {
  readonly vcpus: number;
  readonly memoryMib: number;
}

/** One VM of a stream: who asks for what, in the order of asking. */
export interface Arrival extends Flavour {
  /** VMs with the same number were asked for together by one tenant. */
  readonly batch: number;
}

export interface Capacity {
  readonly cpus: number;
  readonly memoryMib: number;
}

/** The host of all rows against hail: one NUMA node, because hail knows none. */
export const HOST: Capacity = { cpus: 64, memoryMib: 256 * 1024 };
