// SPDX-License-Identifier: Apache-2.0
import type { HostId, VmId } from '@busbar/core/ids';
import type { PlacedVm, Placement, Vm } from '../model.ts';
import type { Planner } from '../planner.ts';

export interface Move {
  readonly vm: Vm;
  readonly from: HostId;
  readonly to: Placement;
  /** By how much the placement costs less there, in the units of the score. */
  readonly gain: number;
}

export interface RebalanceLimits {
  readonly movesMax: number;
  /** Moves that gain less are not worth the disturbance. */
  readonly gainMin: number;
  /** VMs that stay where they are: those whose migration would hurt. */
  readonly stays?: (vm: Vm) => boolean;
}

/**
 * Moves, in an order in which each is possible when those before it are done, that make the cluster as it would be if its VMs
 * were placed anew: few of them, those that gain most for each MiB moved first. No rule is broken at any step. The planner
 * is afterwards as before.
 */
export function rebalance(planner: Planner, limits: RebalanceLimits): readonly Move[] {
  const moves: Move[] = [];
  const original = new Map<VmId, PlacedVm>();
  for (let round = 0; round < limits.movesMax; round++) {
    const best = bestMove(planner, limits, original);
    if (best === null) break;
    moves.push(best.move);
    original.set(best.placed.vm.id, best.placed);
    planner.take({ vm: best.placed.vm, placement: best.move.to });
  }
  for (const placed of original.values()) planner.release(placed.vm.id);
  for (const placed of original.values()) planner.take(placed);
  return moves;
}

function bestMove(
  planner: Planner,
  { gainMin, stays }: RebalanceLimits,
  moved: ReadonlyMap<VmId, PlacedVm>,
): { readonly move: Move; readonly placed: PlacedVm } | null {
  let best: { readonly move: Move; readonly placed: PlacedVm; readonly worth: number } | null = null;
  for (const placed of planner.placed()) {
    const { vm, placement } = placed;
    // Twice moved is once too often.
    if (vm.pinnedHost !== '' || moved.has(vm.id) || stays?.(vm) === true) continue;
    const found = planner.without(vm.id, () => {
      const to = planner.decide(vm);
      if (!to.ok || to.value.host === placement.host) return null;
      return { to: to.value, gain: planner.costOf(vm, placement) - planner.costOf(vm, to.value) };
    });
    if (found === null || found.gain < gainMin) continue;
    const worth = found.gain / Math.max(1, vm.memoryMib);
    if (best === null || worth > best.worth) best = { move: { vm, from: placement.host, ...found }, placed, worth };
  }
  return best;
}
