// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import type { Result } from '@busbar/core/result';
import type { HostVerdict, PlacedVm, Placement, Refusal, Snapshot, Vm } from './model.ts';

/**
 * A cluster being filled: made from a snapshot, it knows what is free on every NUMA node, and keeps that up to date as VMs
 * come and go. Deterministic: the same snapshot and calls give the same answers. No I/O, no clock, no chance.
 */
export interface Planner {
  /** Where the VM would go now. Takes nothing. A VM that holds resources here is decided as if it held none. */
  decide(vm: Vm): Result<Placement, Refusal>;
  /** Gives the VM what the placement says, without asking whether it is a good idea; throws when it is not free. */
  take(placed: PlacedVm): void;
  /** Frees what the VM holds; false when it holds nothing. */
  release(id: VmId): boolean;
  /** Decides and takes. */
  place(vm: Vm): Result<Placement, Refusal>;
  /** What each host says, in the order of their ids. Slow and thorough: for people. */
  explain(vm: Vm): readonly HostVerdict[];
}

export declare function createPlanner(snapshot: Snapshot): Planner;
