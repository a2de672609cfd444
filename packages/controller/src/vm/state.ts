// SPDX-License-Identifier: Apache-2.0
import type { StateTable } from '@busbar/core/state-table';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';

export type LiveVmPhase = Exclude<VmPhase, typeof VmPhase.UNSPECIFIED | typeof VmPhase.UNRECOGNIZED>;

/** Writer: the leader (VM reconciler and VM sagas), in fenced transactions. */
export const VM_PHASES: StateTable<LiveVmPhase> = {
  [VmPhase.CREATING]: [VmPhase.STOPPED, VmPhase.DELETING],
  [VmPhase.STOPPED]: [VmPhase.PENDING, VmPhase.STARTING, VmPhase.DELETING],
  [VmPhase.PENDING]: [VmPhase.STARTING, VmPhase.STOPPED, VmPhase.DELETING],
  [VmPhase.STARTING]: [VmPhase.RUNNING, VmPhase.PAUSED, VmPhase.STOPPED, VmPhase.STOPPING, VmPhase.UNKNOWN],
  [VmPhase.RUNNING]: [VmPhase.STOPPING, VmPhase.STOPPED, VmPhase.PAUSED, VmPhase.UNKNOWN],
  // Back to life: the wish was taken back before the guest obeyed.
  [VmPhase.STOPPING]: [VmPhase.STOPPED, VmPhase.STARTING, VmPhase.RUNNING, VmPhase.PAUSED, VmPhase.UNKNOWN],
  [VmPhase.PAUSED]: [VmPhase.RUNNING, VmPhase.STOPPING, VmPhase.STOPPED, VmPhase.UNKNOWN],
  [VmPhase.UNKNOWN]: [VmPhase.STARTING, VmPhase.RUNNING, VmPhase.STOPPING, VmPhase.STOPPED, VmPhase.PAUSED],
  [VmPhase.DELETING]: [],
};

/** A host owns the VM's epoch: it may be running there. */
export const ON_HOST: ReadonlySet<VmPhase> = new Set([
  VmPhase.STARTING,
  VmPhase.RUNNING,
  VmPhase.STOPPING,
  VmPhase.PAUSED,
  VmPhase.UNKNOWN,
]);

/** The phase in one word, as people read it: "running". */
export function phaseWord(phase: VmPhase): string {
  return phase.replace('VM_PHASE_', '').toLowerCase();
}
