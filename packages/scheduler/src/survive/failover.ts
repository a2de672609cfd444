// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import { demandOn, type Room, type Seated, seatingsOn } from '../fit/seat.ts';
import type { PlacementPolicy, Vm } from '../model.ts';
import type { Groups, Ruling } from '../rule/groups.ts';
import type { Demand, Shape } from '../shape/shape.ts';
import type { Loss } from './losses.ts';

/** An HA VM, as a failure sees it. */
export interface Member {
  readonly vm: Vm;
  readonly shape: Shape;
  readonly host: number;
}

/** Where a VM goes when what its host is part of is lost. */
export interface Refuge extends Seated {
  readonly member: Member;
  readonly host: number;
}

/** What the plans need of the cluster. */
export interface FailoverWorld {
  /** What is free now, nothing kept back. */
  readonly free: Room;
  readonly groups: Groups;
  readonly policy: PlacementPolicy;
  /** Whether a host may be considered for the shape at all: state, labels, networks. */
  readonly admits: (shape: Shape, host: number) => boolean;
}

/** Steps of the search for a plan; enough for every order of 7 VMs over 4 hosts, a few ms. */
const STEPS_MAX = 20_000;

/** Whether every loss would be survived; if not, one that would not, and whether that is proven. */
export interface Survival {
  readonly ok: boolean;
  readonly loss: string;
  readonly proven: boolean;
}

type Verdict =
  | { readonly kind: 'planned'; readonly refuges: readonly Refuge[] }
  /** Proven: no plan has a place for all. */
  | { readonly kind: 'impossible' }
  /** The search was cut off. Counts as no, and says so. */
  | { readonly kind: 'unproven' };

/**
 * For each loss that must be survived, a plan: where every HA VM of the lost hosts goes. What the plans of one loss hold on a
 * node adds up; those of different losses do not, since one is survived at a time: kept back is the most that any of them holds.
 */
export class Failover {
  readonly losses: readonly Loss[];
  /** reserve[node * stride + dimension]: what must stay free. */
  readonly reserve: Int32Array;
  readonly #world: FailoverWorld;
  readonly #lossesOfHost: readonly (readonly number[])[];
  readonly #isLost: readonly Uint8Array[];
  /** Per loss: the members on its hosts. */
  readonly #members: readonly Map<VmId, Member>[];
  readonly #refuges: readonly Map<VmId, Refuge>[];
  readonly #homeless: readonly Map<VmId, Member>[];
  /** What a loss holds on a node: pool[slot * stride ...]. */
  readonly #slots = new Map<number, number>();
  readonly #slotsOfNode: readonly number[][];
  readonly #lossOfSlot: number[] = [];
  #pool = new Int32Array(1024);
  /** Where the last VM of each loss went, and the last one of any: the next one likely fits there as well. */
  readonly #lastRefuge: Int32Array;
  #spare = -1;

  constructor(losses: readonly Loss[], world: FailoverWorld) {
    const { topology } = world.free;
    this.losses = losses;
    this.#world = world;
    this.reserve = new Int32Array(world.free.amounts.length);
    this.#lossesOfHost = topology.hosts.map((_, h) =>
      losses.flatMap((loss, index) => (loss.hosts.includes(h) ? [index] : [])),
    );
    this.#isLost = losses.map((loss) => {
      const lost = new Uint8Array(topology.hosts.length);
      for (const host of loss.hosts) lost[host] = 1;
      return lost;
    });
    this.#members = losses.map(() => new Map());
    this.#refuges = losses.map(() => new Map());
    this.#homeless = losses.map(() => new Map());
    this.#slotsOfNode = Array.from(topology.nodeIds, () => []);
    this.#lastRefuge = new Int32Array(losses.length).fill(-1);
  }

  refugesOf(loss: number): readonly Refuge[] {
    return [...(this.#refuges[loss]?.values() ?? [])];
  }

  homelessOf(loss: number): readonly Member[] {
    return [...(this.#homeless[loss]?.values() ?? [])];
  }

  lossesOf(host: number): readonly number[] {
    return this.#lossesOfHost[host] ?? [];
  }

  /** Whether a VM that would be placed on the host has a place for each loss of the host, as the plans stand. Changes nothing. */
  hasRefuge(member: Member): boolean {
    for (const loss of this.lossesOf(member.host)) if (this.#findRefuge(loss, member) === null) return false;
    return true;
  }

  /** The member was placed. Returns the nodes whose reserve changed. */
  add(member: Member): readonly number[] {
    const changed = new Set<number>();
    for (const loss of this.lossesOf(member.host)) {
      this.#members[loss]?.set(member.vm.id, member);
      const refuge = this.#findRefuge(loss, member);
      if (refuge !== null) this.#hold(loss, refuge, changed);
      else this.#replan(loss, changed);
    }
    return [...changed];
  }

  /** The VM is gone. */
  remove(id: VmId, host: number): readonly number[] {
    const changed = new Set<number>();
    for (const loss of this.lossesOf(host)) {
      this.#members[loss]?.delete(id);
      this.#homeless[loss]?.delete(id);
      const refuge = this.#refuges[loss]?.get(id);
      if (refuge === undefined) continue;
      this.#letGo(loss, refuge, changed);
      if ((this.#homeless[loss]?.size ?? 0) > 0) this.#replan(loss, changed);
    }
    return [...changed];
  }

  /** What is free on a node became less: plans that relied on it are made anew. Returns the nodes whose reserve changed. */
  recheck(node: number): readonly number[] {
    const changed = new Set<number>();
    const { amounts, topology } = this.#world.free;
    for (const slot of [...(this.#slotsOfNode[node] ?? [])]) {
      const broken = this.#exceeds(slot, amounts, node * topology.stride);
      if (broken) this.#replan(this.#lossOfSlot[slot] ?? 0, changed);
    }
    return [...changed];
  }

  /** Losses with VMs that have no place now; tries again to find one. */
  retry(): readonly number[] {
    const changed = new Set<number>();
    this.losses.forEach((_, loss) => {
      if ((this.#homeless[loss]?.size ?? 0) > 0) this.#replan(loss, changed);
    });
    return [...changed];
  }

  /**
   * Whether every loss that has a plan now would have one if the room were `free` and the member (if HA) were there. Used when the
   * plans as they stand are in the way: others may exist. Names the loss that would not be survived.
   */
  couldSurvive(free: Room, nodes: readonly number[], member: Member | null): Survival {
    const { stride } = free.topology;
    const affected = new Set<number>(member === null ? [] : this.lossesOf(member.host));
    for (const node of nodes) {
      for (const slot of this.#slotsOfNode[node] ?? []) {
        if (this.#exceeds(slot, free.amounts, node * stride)) affected.add(this.#lossOfSlot[slot] ?? 0);
      }
    }
    const total = totalOf(free);
    for (const loss of affected) {
      const homeless = this.#homeless[loss];
      const members = [...(this.#members[loss]?.values() ?? [])].filter(({ vm }) => homeless?.has(vm.id) !== true);
      if (member !== null && this.lossesOf(member.host).includes(loss)) members.push(member);
      const verdict = this.#plan(loss, members, free, total);
      if (verdict.kind !== 'planned') {
        return { ok: false, loss: this.losses[loss]?.name ?? '', proven: verdict.kind === 'impossible' };
      }
    }
    return { ok: true, loss: '', proven: true };
  }

  // ------------------------------------------------------------------------------------------------------ one VM at a time

  /** Rules of a VM under a loss: who was on a lost host is where the plan puts it, or nowhere. */
  #rulings(loss: number, member: Member, planned: ReadonlyMap<VmId, Refuge>): readonly Ruling[] {
    if (member.vm.rules.length === 0) return NO_RULINGS;
    const lost = this.#isLost[loss];
    return member.vm.rules.flatMap((rule) => {
      if (rule.soft) return [];
      const ruling = this.#world.groups.ruling(member.vm, rule, (id, host) =>
        lost?.[host] === 1 ? (planned.get(id)?.host ?? -1) : host,
      );
      return ruling === null ? [] : [ruling];
    });
  }

  #mayGo(loss: number, member: Member, host: number, rulings: readonly Ruling[]): boolean {
    if (this.#isLost[loss]?.[host] === 1 || !this.#world.admits(member.shape, host)) return false;
    const { vm } = member;
    if (vm.pinnedHost !== '' && this.#world.free.topology.hosts[host]?.id !== vm.pinnedHost) return false;
    for (const ruling of rulings) if (!this.#world.groups.allows(ruling, host)) return false;
    return true;
  }

  /** A place beside what the plan of the loss holds already. One that needs nothing kept back beyond what is, if there is one. */
  #findRefuge(loss: number, member: Member): Refuge | null {
    const planned = this.#refuges[loss] ?? NO_REFUGES;
    const rulings = this.#rulings(loss, member, planned);
    const hosts = this.#world.free.topology.hosts.length;
    let best: Refuge | null = null;
    let bestGrowth = Number.POSITIVE_INFINITY;
    const consider = (host: number): boolean => {
      if (host < 0 || !this.#mayGo(loss, member, host, rulings)) return false;
      const found = this.#seatBeside(loss, member, host);
      if (found === null) return false;
      const growth = this.#growth(loss, found);
      // Of equal growth the emptiest host: what is kept back there is in nobody's way.
      if (best === null || growth < bestGrowth) [best, bestGrowth] = [found, growth];
      return growth === 0;
    };
    if (consider(this.#lastRefuge[loss] ?? -1) || consider(this.#spare)) return best;
    for (let host = 0; host < hosts; host++) if (consider(host)) break;
    return best;
  }

  #seatBeside(loss: number, member: Member, host: number): Refuge | null {
    const { free } = this.#world;
    const { topology } = free;
    const { shape } = member;
    if (shape.whole !== null && shape.looseDevices.length === 0) {
      const end = topology.nodeOfHost[host + 1] as number;
      for (let node = topology.nodeOfHost[host] as number; node < end; node++) {
        const demand = demandOn(topology, shape.whole, node);
        if (!this.#fitsBeside(loss, demand, node)) continue;
        const seats = [{ node, vcpus: shape.needs.vcpus, memoryMib: shape.needs.memoryMib }];
        const devices = shape.boundDevices.map((each) => ({ ...each, node, loose: false, bound: true }));
        return { member, host, seating: { seats, devices }, held: [{ node, demand }] };
      }
      if (!shape.maySplit || topology.nodeOfHost[host + 1] === (topology.nodeOfHost[host] as number) + 1) return null;
    }
    const [found] = seatingsOn(this.#roomBeside(loss, host, free), shape, host, this.#world.policy);
    return found === undefined ? null : { member, host, ...found };
  }

  #fitsBeside(loss: number, demand: Demand, node: number): boolean {
    const { amounts, topology } = this.#world.free;
    const at = node * topology.stride;
    const slot = this.#slots.get(loss * topology.nodeIds.length + node);
    const base = slot === undefined ? -1 : slot * topology.stride;
    for (let i = 0; i < demand.dimensions.length; i++) {
      const dimension = demand.dimensions[i] as number;
      const held = base < 0 ? 0 : (this.#pool[base + dimension] as number);
      if ((amounts[at + dimension] as number) - held < (demand.amounts[i] as number)) return false;
    }
    return true;
  }

  /** The host's room without what the loss holds there. */
  #roomBeside(loss: number, host: number, free: Room): Room {
    const { topology } = free;
    const amounts = free.amounts.slice();
    for (let node = topology.nodeOfHost[host] ?? 0; node < (topology.nodeOfHost[host + 1] ?? 0); node++) {
      const slot = this.#slots.get(loss * topology.nodeIds.length + node);
      if (slot === undefined) continue;
      for (let i = 0; i < topology.stride; i++) {
        amounts[node * topology.stride + i] =
          (amounts[node * topology.stride + i] ?? 0) - (this.#pool[slot * topology.stride + i] ?? 0);
      }
    }
    return { ...free, amounts };
  }

  /** How much more would have to be kept back, in shares of what is free there. */
  #growth(loss: number, refuge: Refuge): number {
    const { topology, amounts } = this.#world.free;
    let growth = 0;
    for (const { node, demand } of refuge.held) {
      const at = node * topology.stride;
      const slot = this.#slots.get(loss * topology.nodeIds.length + node);
      const base = slot === undefined ? -1 : slot * topology.stride;
      for (let i = 0; i < demand.dimensions.length; i++) {
        const dimension = demand.dimensions[i] as number;
        const held = (base < 0 ? 0 : (this.#pool[base + dimension] as number)) + (demand.amounts[i] as number);
        const more = held - (this.reserve[at + dimension] as number);
        if (more > 0) growth += more / Math.max(1, amounts[at + dimension] as number);
      }
    }
    return growth;
  }

  // ------------------------------------------------------------------------------------------------------ what is held

  #hold(loss: number, refuge: Refuge, changed: Set<number>): void {
    this.#refuges[loss]?.set(refuge.member.vm.id, refuge);
    this.#lastRefuge[loss] = refuge.host;
    const { topology } = this.#world.free;
    const { stride } = topology;
    for (const { node, demand } of refuge.held) {
      const base = this.#slotOf(loss, node) * stride;
      for (let i = 0; i < demand.dimensions.length; i++) {
        const dimension = demand.dimensions[i] as number;
        const held = (this.#pool[base + dimension] as number) + (demand.amounts[i] as number);
        this.#pool[base + dimension] = held;
        if (held > (this.reserve[node * stride + dimension] as number)) {
          this.reserve[node * stride + dimension] = held;
          this.#spare = refuge.host;
          changed.add(node);
        }
      }
    }
  }

  #letGo(loss: number, refuge: Refuge, changed: Set<number>): void {
    this.#refuges[loss]?.delete(refuge.member.vm.id);
    const { stride } = this.#world.free.topology;
    for (const { node, demand } of refuge.held) {
      const base = this.#slotOf(loss, node) * stride;
      for (let i = 0; i < demand.dimensions.length; i++) {
        const dimension = demand.dimensions[i] as number;
        const at = node * stride + dimension;
        const held = this.#pool[base + dimension] as number;
        this.#pool[base + dimension] = held - (demand.amounts[i] as number);
        if (held < (this.reserve[at] as number)) continue;
        let most = 0;
        for (const slot of this.#slotsOfNode[node] ?? []) {
          most = Math.max(most, this.#pool[slot * stride + dimension] as number);
        }
        if (most === this.reserve[at]) continue;
        this.reserve[at] = most;
        changed.add(node);
      }
    }
  }

  #slotOf(loss: number, node: number): number {
    const { topology } = this.#world.free;
    const key = loss * topology.nodeIds.length + node;
    const known = this.#slots.get(key);
    if (known !== undefined) return known;
    const slot = this.#slots.size;
    this.#slots.set(key, slot);
    this.#slotsOfNode[node]?.push(slot);
    this.#lossOfSlot.push(loss);
    if ((slot + 1) * topology.stride > this.#pool.length) {
      const larger = new Int32Array(2 * this.#pool.length);
      larger.set(this.#pool);
      this.#pool = larger;
    }
    return slot;
  }

  #exceeds(slot: number, amounts: Int32Array, at: number): boolean {
    const { stride } = this.#world.free.topology;
    for (let i = 0; i < stride; i++) {
      const held = this.#pool[slot * stride + i] as number;
      if (held > 0 && held > (amounts[at + i] as number)) return true;
    }
    return false;
  }

  // ------------------------------------------------------------------------------------------------------ whole plans

  /** A new plan for the loss. When there is no place for all, those of the highest priority are served first. */
  #replan(loss: number, changed: Set<number>): void {
    for (const refuge of [...(this.#refuges[loss]?.values() ?? [])]) this.#letGo(loss, refuge, changed);
    this.#homeless[loss]?.clear();
    const members = [...(this.#members[loss]?.values() ?? [])];
    const whole = this.#plan(loss, members, this.#world.free);
    let refuges = whole.kind === 'planned' ? whole.refuges : [];
    if (whole.kind !== 'planned') {
      const served: Member[] = [];
      for (const member of inOrder(members)) {
        const verdict = this.#plan(loss, [...served, member], this.#world.free);
        if (verdict.kind === 'planned') {
          served.push(member);
          refuges = verdict.refuges;
        } else {
          this.#homeless[loss]?.set(member.vm.id, member);
        }
      }
    }
    for (const refuge of refuges) this.#hold(loss, refuge, changed);
  }

  /** Looks for places for all of them at once: greedily, then by trying everything, up to a number of steps. */
  #plan(loss: number, members: readonly Member[], free: Room, total = totalOf(free)): Verdict {
    if (!this.#volumeSuffices(loss, members, free, total)) return { kind: 'impossible' };
    const { topology } = free;
    const amounts = free.amounts.slice();
    const room: Room = { ...free, amounts };
    const ordered = inOrder(members);
    const planned = new Map<VmId, Refuge>();
    const kinds = this.#kindsOfHosts(ordered);
    let steps = 0;
    let cut = false;
    const change = ({ held }: Refuge, sign: 1 | -1) => {
      for (const { node, demand } of held) {
        for (let i = 0; i < demand.dimensions.length; i++) {
          const at = node * topology.stride + (demand.dimensions[i] as number);
          amounts[at] = (amounts[at] as number) - sign * (demand.amounts[i] as number);
        }
      }
    };
    const search = (index: number): boolean => {
      const member = ordered[index];
      if (member === undefined) return true;
      const rulings = this.#rulings(loss, member, planned);
      const seen = new Set<string>();
      for (let host = 0; host < topology.hosts.length; host++) {
        if (!this.#mayGo(loss, member, host, rulings)) continue;
        for (const seated of seatingsOn(room, member.shape, host, this.#world.policy)) {
          const refuge = { member, host, ...seated };
          if (kinds !== null) {
            const key = `${kinds[host]} ${placeKey(room, refuge)}`;
            if (seen.has(key)) continue;
            seen.add(key);
          }
          if (++steps > STEPS_MAX) {
            cut = true;
            return false;
          }
          planned.set(member.vm.id, refuge);
          change(refuge, 1);
          if (search(index + 1)) return true;
          change(refuge, -1);
          planned.delete(member.vm.id);
          if (cut) return false;
        }
      }
      return false;
    };
    if (search(0)) return { kind: 'planned', refuges: [...planned.values()] };
    return { kind: cut ? 'unproven' : 'impossible' };
  }

  /** Hosts with equal words are equal for all of the members; null where rules make every host its own kind. */
  #kindsOfHosts(members: readonly Member[]): readonly string[] | null {
    const ruled = ({ vm }: Member) => vm.pinnedHost !== '' || vm.rules.some(({ soft }) => !soft);
    if (members.some(ruled)) return null;
    const shapes = [...new Set(members.map(({ shape }) => shape))];
    const { hosts, nodeOfHost, hasGeneral } = this.#world.free.topology;
    return hosts.map((_, host) => {
      const admitted = shapes.map((shape) => (this.#world.admits(shape, host) ? 1 : 0)).join('');
      return `${admitted} ${hasGeneral.subarray(nodeOfHost[host], nodeOfHost[host + 1]).join('')}`;
    });
  }

  /** A bound that costs little: what all of them take against all that is free where any of them may go. */
  #volumeSuffices(loss: number, members: readonly Member[], { topology, amounts }: Room, total: Float64Array): boolean {
    const need = new Float64Array(topology.stride);
    for (const { shape } of members) {
      const parts = shape.whole === null ? shape.cells : [shape.whole];
      for (const { general, isolatedOnly } of parts) {
        general.dimensions.forEach((dimension, i) => {
          const other = isolatedOnly.dimensions.indexOf(dimension);
          const least = other < 0 ? 0 : Math.min(general.amounts[i] ?? 0, isolatedOnly.amounts[other] ?? 0);
          need[dimension] = (need[dimension] ?? 0) + least;
        });
      }
    }
    const have = total.slice();
    for (const host of this.losses[loss]?.hosts ?? []) {
      const end = (topology.nodeOfHost[host + 1] as number) * topology.stride;
      for (let at = (topology.nodeOfHost[host] as number) * topology.stride; at < end; at++) {
        const dimension = at % topology.stride;
        have[dimension] = (have[dimension] as number) - Math.max(0, amounts[at] as number);
      }
    }
    return need.every((amount, dimension) => amount <= (have[dimension] as number));
  }
}

/** All that is free in the cluster, by dimension. */
function totalOf({ topology, amounts }: Room): Float64Array {
  const total = new Float64Array(topology.stride);
  for (let at = 0; at < amounts.length; at++) {
    const dimension = at % topology.stride;
    total[dimension] = (total[dimension] as number) + Math.max(0, amounts[at] as number);
  }
  return total;
}

/** Equal for places that leave the same behind. */
function placeKey({ topology, amounts }: Room, { host, held }: Refuge): string {
  const first = topology.nodeOfHost[host] as number;
  const end = topology.nodeOfHost[host + 1] as number;
  return `${held.map(({ node }) => node - first).join()} ${amounts.subarray(first * topology.stride, end * topology.stride).join()}`;
}

/** Highest priority first; of equal ones the largest, which is hardest to place. */
function inOrder(members: readonly Member[]): readonly Member[] {
  return members.toSorted(
    (a, b) =>
      b.vm.priority - a.vm.priority ||
      b.vm.vcpus - a.vm.vcpus ||
      b.vm.memoryMib - a.vm.memoryMib ||
      (a.vm.id < b.vm.id ? -1 : 1),
  );
}

const NO_RULINGS: readonly Ruling[] = [];
const NO_REFUGES: ReadonlyMap<VmId, Refuge> = new Map();
