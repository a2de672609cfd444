// SPDX-License-Identifier: Apache-2.0
import type { HostId } from '@busbar/core/ids';
import type { PlacedVm, Placement, Vm } from '../model.ts';
import type { Planner } from '../planner.ts';

/** A change that makes room for a VM that was refused; each one is enough by itself. */
export type Advice =
  | {
      readonly kind: 'move';
      readonly vm: Vm;
      readonly from: HostId;
      readonly to: Placement;
      readonly placement: Placement;
    }
  | { readonly kind: 'stop'; readonly vm: Vm; readonly host: HostId; readonly placement: Placement }
  | { readonly kind: 'resize'; readonly vcpus: number; readonly memoryMib: number; readonly placement: Placement };

/** VMs tried: at most some 100 ms, which an engineer waits for and a stream of requests does not pay. */
const TRIES_MAX = 2_000;

/**
 * The smallest change of each kind that would make room, the least intrusive kind first: moving one VM (the smallest, which is
 * moved soonest), stopping one (of lower priority than the newcomer, the lowest and smallest), asking for less. Found by the
 * planner itself, so what it says holds: the state is put back afterwards.
 */
export function adviceFor(planner: Planner, vm: Vm): readonly Advice[] {
  const advice: Advice[] = [];
  const move = moveFor(planner, vm);
  if (move !== null) advice.push(move);
  const stop = stopFor(planner, vm);
  if (stop !== null) advice.push(stop);
  const resize = resizeFor(planner, vm);
  if (resize !== null) advice.push(resize);
  return advice;
}

/** One VM whose move to another host makes room. */
export function moveFor(planner: Planner, vm: Vm): Extract<Advice, { kind: 'move' }> | null {
  let tries = 0;
  for (const victim of smallestFirst(planner.placed())) {
    if (victim.vm.id === vm.id || victim.vm.pinnedHost !== '') continue;
    if (!planner.mightFitWithout(vm, victim)) continue;
    if (++tries > TRIES_MAX) return null;
    const found = planner.without(victim.vm.id, () => {
      const { host } = victim.placement;
      const then = planner.decide({ ...vm, pinnedHost: host });
      if (!then.ok || (vm.pinnedHost !== '' && vm.pinnedHost !== host)) return null;
      return planner.with({ vm, placement: then.value }, () => {
        const to = planner.decide(victim.vm);
        return to.ok && to.value.host !== host
          ? ({ kind: 'move', vm: victim.vm, from: host, to: to.value, placement: then.value } as const)
          : null;
      });
    });
    if (found !== null) return found;
  }
  return null;
}

function stopFor(planner: Planner, vm: Vm): Advice | null {
  const lower = planner.placed().filter((each) => each.vm.priority < vm.priority && each.vm.id !== vm.id);
  const ordered = smallestFirst(lower).toSorted((a, b) => a.vm.priority - b.vm.priority);
  for (const victim of ordered.slice(0, TRIES_MAX)) {
    if (!planner.mightFitWithout(vm, victim)) continue;
    const then = planner.without(victim.vm.id, () => planner.decide(vm));
    if (then.ok) return { kind: 'stop', vm: victim.vm, host: victim.placement.host, placement: then.value };
  }
  return null;
}

/** The most vCPUs with the memory asked for, else the most memory with the vCPUs asked for, else both in proportion. */
function resizeFor(planner: Planner, vm: Vm): Advice | null {
  // Cells are what the guest's software was laid out for.
  if (vm.guestNuma === 'explicit') return null;
  const unitMib = vm.hugepageMib === 0 ? MEMORY_STEP_MIB : Math.max(vm.hugepageMib, MEMORY_STEP_MIB);
  const tryWith = (vcpus: number, memoryMib: number) => planner.decide({ ...vm, vcpus, memoryMib });
  const most = (upTo: number, sized: (part: number) => readonly [number, number]): Advice | null => {
    let [low, high] = [0, upTo];
    let found: Advice | null = null;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      const [vcpus, memoryMib] = sized(middle);
      const then = tryWith(vcpus, memoryMib);
      if (then.ok) [low, found] = [middle, { kind: 'resize', vcpus, memoryMib, placement: then.value }];
      else high = middle - 1;
    }
    return found;
  };
  const steps = Math.ceil(vm.memoryMib / unitMib) - 1;
  return (
    most(vm.vcpus - 1, (vcpus) => [vcpus, vm.memoryMib]) ??
    most(steps, (units) => [vm.vcpus, units * unitMib]) ??
    most(vm.vcpus - 1, (vcpus) => [
      vcpus,
      Math.max(1, Math.floor((vm.memoryMib * vcpus) / vm.vcpus / unitMib)) * unitMib,
    ])
  );
}

/** Nobody orders memory in single MiB. */
const MEMORY_STEP_MIB = 64;

/** The one that is moved soonest: least memory. */
function smallestFirst(placed: readonly PlacedVm[]): readonly PlacedVm[] {
  return placed.toSorted((a, b) => a.vm.memoryMib - b.vm.memoryMib || (a.vm.id < b.vm.id ? -1 : 1));
}
