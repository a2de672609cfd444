// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import type { Room } from '../fit/room.ts';
import { mightSeat, seatingsOn } from '../fit/seat.ts';
import type { PlacementPolicy } from '../model.ts';
import type { Member, Refuge } from './refuge.ts';

/** What the search for a plan may ask. */
export interface SearchWorld {
  readonly policy: PlacementPolicy;
  /** Whether rules, labels and the loss itself let the VM go there, given where the others go. */
  readonly mayGo: (member: Member, planned: ReadonlyMap<VmId, Refuge>) => (host: number) => boolean;
  /** Hosts with equal words are equal for all of the members; null where rules make every host its own kind. */
  readonly kinds: readonly string[] | null;
}

export type Verdict =
  | { readonly kind: 'planned'; readonly refuges: readonly Refuge[] }
  /** Proven: no plan has a place for all. */
  | { readonly kind: 'impossible' }
  /** The search was cut off. Counts as no, and says so. */
  | { readonly kind: 'unproven' };

/** How much may still be tried; shared by the searches of one question. */
export interface Effort {
  left: number;
  /** Somebody will read the answer: it may cost a few searches more to say whom it is about. */
  readonly isNaming: boolean;
}

/** To find how a VM is spread takes as long as to look at so many hosts. */
const SPREAD_EFFORT = 25;

/** Hosts looked at: enough for every way of 7 VMs over 4 hosts, and at most about 10 ms. */
export const enough = (isNaming = false): Effort => ({ left: 100_000, isNaming });

/**
 * A place for each of the members, all at once: depth first, largest first, and of places that leave the same behind only one.
 * Exact as long as the effort suffices.
 */
export function search(members: readonly Member[], free: Room, world: SearchWorld, effort: Effort): Verdict {
  const { topology } = free;
  const room: Room = { topology, amounts: free.amounts.slice() };
  // VMs that can be shared out over the nodes of a host take what others leave, in whatever pieces: last.
  const pliable = ({ shape }: Member) => Number(shape.maySplit && shape.needs.guestNuma === 'none' && topology.isNuma);
  const ordered = inOrder(members).toSorted((a, b) => pliable(a) - pliable(b));
  const planned = new Map<VmId, Refuge>();
  const shift = ({ held }: Refuge, sign: 1 | -1) => {
    for (const { node, demand } of held) {
      for (let i = 0; i < demand.dimensions.length; i++) {
        const at = node * topology.stride + (demand.dimensions[i] as number);
        room.amounts[at] = (room.amounts[at] as number) - sign * (demand.amounts[i] as number);
      }
    }
  };
  const step = (index: number): boolean => {
    const member = ordered[index];
    if (member === undefined) return true;
    const mayGo = world.mayGo(member, planned);
    const tried = new Set<string>();
    for (let host = 0; host < topology.hosts.length; host++) {
      if (--effort.left < 0) return false;
      if (!mayGo(host) || !mightSeat(room, member.shape, host, world.policy)) continue;
      for (const seated of seatingsOn(room, member.shape, host, world.policy, true)) {
        effort.left -= seated.seating.seats.length > 1 ? SPREAD_EFFORT : 1;
        if (effort.left < 0) return false;
        const refuge: Refuge = { member, host, ...seated };
        const key = world.kinds === null ? null : `${world.kinds[host]} ${leftBehind(room, refuge)}`;
        if (key !== null && tried.has(key)) continue;
        if (key !== null) tried.add(key);
        planned.set(member.vm.id, refuge);
        shift(refuge, 1);
        if (step(index + 1)) return true;
        shift(refuge, -1);
        planned.delete(member.vm.id);
      }
    }
    return false;
  };
  if (step(0)) return { kind: 'planned', refuges: [...planned.values()] };
  return { kind: effort.left < 0 ? 'unproven' : 'impossible' };
}

/** Equal for places on equal hosts. */
function leftBehind({ topology, amounts }: Room, { host, held }: Refuge): string {
  const first = topology.nodeOfHost[host] as number;
  const end = topology.nodeOfHost[host + 1] as number;
  const there = amounts.subarray(first * topology.stride, end * topology.stride).join();
  return `${held.map(({ node }) => node - first).join()} ${there}`;
}

/** Highest priority first; of equal ones the largest, which is hardest to place. */
export function inOrder(members: readonly Member[]): readonly Member[] {
  return members.toSorted(
    (a, b) =>
      b.vm.priority - a.vm.priority ||
      b.vm.vcpus - a.vm.vcpus ||
      b.vm.memoryMib - a.vm.memoryMib ||
      (a.vm.id < b.vm.id ? -1 : 1),
  );
}
