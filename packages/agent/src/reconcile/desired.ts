// SPDX-License-Identifier: Apache-2.0
import type { BootId, VmId } from '@busbar/core/ids';
import { ok, type Result, refuse } from '@busbar/core/result';
import type { DesiredState, DesiredVm, StatePosition } from '@busbar/proto/gen/busbar/agent/v1/agent';

/** A desired state that was checked: what it says of a VM can be looked up and cannot contradict itself. */
export interface Desired {
  readonly position: StatePosition;
  readonly vms: ReadonlyMap<VmId, DesiredVm>;
  /** The highest epoch to destroy, per VM. */
  readonly destroyUpTo: ReadonlyMap<VmId, bigint>;
  /** Why nothing may be started; empty when starts are allowed. */
  readonly noStart: string;
  /** Parts that were left out, for people. */
  readonly problems: readonly string[];
}

export const NO_POSITION: StatePosition = { term: 0n, generation: 0n };

/** First by term: a new leader's first state wins over anything of the former leader, whatever it was made from. */
export function comparePositions(a: StatePosition, b: StatePosition): number {
  if (a.term !== b.term) return a.term < b.term ? -1 : 1;
  if (a.generation !== b.generation) return a.generation < b.generation ? -1 : 1;
  return 0;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Accepts a state that is not older than the newest accepted one. Equal is fine: a leader repeats
 * its state after a reconnect. Broken entries are left out and named: the other VMs must not suffer. What is for another
 * boot of this host is refused whole: it was decided for a machine that is gone, or that this one is a copy of.
 */
export function acceptDesired(state: DesiredState, accepted: StatePosition, bootId: BootId): Result<Desired, string> {
  if (state.bootId !== '' && state.bootId !== bootId)
    return refuse(`the desired state is for boot ${state.bootId} of this host, and this is boot ${bootId}`);
  const position = state.position;
  if (position === undefined) return refuse('the desired state has no position');
  // No leader has one. Remembered, it would make a memory that the next agent cannot read.
  if (position.term < 0n || position.generation < 0n) return refuse(`the position ${show(position)} is none`);
  if (comparePositions(position, accepted) < 0) {
    return refuse(`the desired state ${show(position)} is older than the accepted ${show(accepted)}`);
  }
  const problems: string[] = [];
  const vms = new Map<VmId, DesiredVm>();
  for (const vm of state.vms) {
    const vmId = vm.vmId as VmId;
    if (!UUID.test(vmId) || vm.epoch <= 0n) {
      problems.push(`VM "${vm.name}" left out: id "${vm.vmId}", epoch ${vm.epoch}`);
    } else if (vms.has(vmId)) {
      problems.push(`VM "${vm.name}" is listed twice`);
      if ((vms.get(vmId)?.epoch ?? 0n) < vm.epoch) vms.set(vmId, vm);
    } else {
      vms.set(vmId, vm);
    }
  }
  const destroyUpTo = new Map<VmId, bigint>();
  for (const order of state.destroy) {
    const vmId = order.vmId as VmId;
    if ((destroyUpTo.get(vmId) ?? 0n) < order.epochMax) destroyUpTo.set(vmId, order.epochMax);
  }
  return ok({ position, vms, destroyUpTo, noStart: state.noStart, problems });
}

function show(position: StatePosition): string {
  return `(term ${position.term}, generation ${position.generation})`;
}
