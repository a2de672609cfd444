// SPDX-License-Identifier: Apache-2.0
import type { HostId } from '@busbar/core/ids';
import type { Host, PlacementPolicy, Vm } from '@busbar/scheduler/model';
import { createPlanner, type Planner } from '@busbar/scheduler/planner';
import { BARE_POLICY } from './model.ts';

export function emptyCluster(hosts: readonly Host[], policy: Partial<PlacementPolicy> = {}): Planner {
  return createPlanner({ hosts, placed: [], policy: { ...BARE_POLICY, ...policy } });
}

/** Placements until the first refusal and the time they took. */
export function placeToRefusal(planner: Planner, vms: readonly Vm[]): { readonly placed: number; readonly ms: number } {
  const began = performance.now();
  let placed = 0;
  while (placed < vms.length && planner.place(vms[placed] as Vm).ok) placed++;
  return { placed, ms: performance.now() - began };
}

/** Milliseconds of each decision; the VM is taken after it, so that no decision finds the cluster as the one before did. */
export function timeDecisions(planner: Planner, vms: readonly Vm[]): number[] {
  return vms.map((vm) => {
    const began = performance.now();
    const decided = planner.decide(vm);
    const ms = performance.now() - began;
    if (decided.ok) planner.take({ vm, placement: decided.value });
    return ms;
  });
}

/** Where each host of a list is in it. */
export function indexOfHosts(hosts: readonly Host[]): ReadonlyMap<HostId, number> {
  return new Map(hosts.map(({ id }, index) => [id, index]));
}
