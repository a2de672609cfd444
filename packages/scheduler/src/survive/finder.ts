// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import { demandOn, type Room } from '../fit/room.ts';
import { mayBeSpread, mightSeat, seatingsOn } from '../fit/seat.ts';
import type { PlacementPolicy } from '../model.ts';
import type { Groups, Ruling } from '../rule/groups.ts';
import type { Shape } from '../shape/shape.ts';
import type { Holds } from './holds.ts';
import type { Loss } from './losses.ts';
import type { Member, Refuge } from './refuge.ts';

/** What the plans need of the cluster. */
export interface FailoverWorld {
  /** What is free now, nothing kept back. */
  readonly free: Room;
  readonly groups: Groups;
  readonly policy: PlacementPolicy;
}

/** The plan for one loss. */
export interface Plan {
  readonly loss: Loss;
  readonly index: number;
  /** 1: the host is lost. */
  readonly isLost: Uint8Array;
  /** HA VMs on its hosts. */
  readonly members: Map<VmId, Member>;
  readonly refuges: Map<VmId, Refuge>;
  /** Members without a place. */
  readonly homeless: Map<VmId, Member>;
  /** Where the last one went: the next one likely fits there as well. */
  lastHost: number;
}

/** What is looked for: any place, or the one for which least more must be kept back. */
export const [ANY, LEAST] = ['any', 'least'] as const;

/** What one host holds finds room on a few others. */
const SPARES_MAX = 8;

/** Looks for a place for one VM in a plan, beside what the plan holds already. */
export class Finder {
  /** Where something is kept back, the last first: what serves one loss likely serves the next, and nothing more must be kept. */
  readonly #spares: number[] = [];
  /** Where a plan was last mended: what serves one loss serves the next. */
  lastMended = -1;
  readonly #world: FailoverWorld;
  readonly #holds: Holds;
  readonly #scratch: Room;
  #hostsWithRoom: Map<Shape, readonly number[]> | null = null;

  constructor(world: FailoverWorld, holds: Holds) {
    this.#world = world;
    this.#holds = holds;
    this.#scratch = { ...world.free, amounts: new Int32Array(world.free.amounts.length) };
  }

  /** Rules of a VM under a loss: who was on a lost host is where the plan puts it, or nowhere. */
  rulings(plan: Plan, member: Member, planned: ReadonlyMap<VmId, Refuge>): readonly Ruling[] {
    if (member.vm.rules.length === 0) return NO_RULINGS;
    const hostOf = (id: VmId, host: number) => (plan.isLost[host] === 1 ? (planned.get(id)?.host ?? -1) : host);
    return member.vm.rules.flatMap((rule) => this.#world.groups.ruling(member.vm, rule, false, hostOf) ?? []);
  }

  mayGo(plan: Plan, { vm, shape }: Member, host: number, rulings: readonly Ruling[]): boolean {
    if (plan.isLost[host] === 1 || shape.admits[host] !== 1) return false;
    if (vm.pinnedHost !== '' && this.#world.free.topology.hosts[host]?.id !== vm.pinnedHost) return false;
    for (const ruling of rulings) if (!this.#world.groups.allows(ruling, host)) return false;
    return true;
  }

  /**
   * A place beside what the plan holds already. One for which nothing more must be kept back, if there is one; else the one for
   * which least of what is free must be, which is on the emptiest host: there it is in nobody's way. With `want` ANY, whichever
   * is found first.
   */
  find(plan: Plan, member: Member, amounts: Int32Array, want: typeof ANY | typeof LEAST): Refuge | null {
    const rulings = this.rulings(plan, member, plan.refuges);
    const { topology } = this.#world.free;
    let best: Refuge | null = null;
    let bestGrowth = Number.POSITIVE_INFINITY;
    const ways = mayBeSpread(member.shape, topology) ? (['whole', 'any'] as const) : (['whole'] as const);
    for (const way of ways) {
      const consider = (host: number): boolean => {
        if (host < 0 || !this.mayGo(plan, member, host, rulings)) return false;
        const found =
          way === 'whole' ? this.#wholeOn(plan, member, host, amounts) : this.#anyOn(plan, member, host, amounts);
        if (found === null) return false;
        if (want === ANY) {
          best = found;
          return true;
        }
        const growth = this.#holds.growth(plan.index, found.held, amounts);
        if (best === null || growth < bestGrowth) [best, bestGrowth] = [found, growth];
        return growth === 0;
      };
      if (consider(plan.lastHost) || consider(this.lastMended) || this.#spares.some(consider)) return best;
      for (const host of this.#hostsFor(member.shape, amounts)) if (consider(host)) break;
      if (best !== null) return best;
    }
    return null;
  }

  /** Something is kept back on the host. */
  noteSpare(host: number): void {
    const at = this.#spares.indexOf(host);
    if (at === 0) return;
    if (at > 0) this.#spares.splice(at, 1);
    this.#spares.unshift(host);
    if (this.#spares.length > SPARES_MAX) this.#spares.pop();
  }

  /** Hosts that have room for the shape, whatever plans hold there: in a full cluster few, and many plans ask for them. */
  #hostsFor(shape: Shape, amounts: Int32Array): readonly number[] {
    const known = this.#hostsWithRoom?.get(shape);
    if (known !== undefined) return known;
    const { free, policy } = this.#world;
    const hosts = [...free.topology.hosts.keys()];
    if (this.#hostsWithRoom === null) return hosts;
    const room: Room = { ...free, amounts };
    const found = hosts.filter((host) => shape.admits[host] === 1 && mightSeat(room, shape, host, policy));
    this.#hostsWithRoom.set(shape, found);
    return found;
  }

  /** While many plans are looked at, with the same amounts free. */
  withSameRoom<T>(work: () => T): T {
    this.#hostsWithRoom = new Map();
    try {
      return work();
    } finally {
      this.#hostsWithRoom = null;
    }
  }

  #wholeOn(plan: Plan, member: Member, host: number, amounts: Int32Array): Refuge | null {
    const { topology } = this.#world.free;
    const { shape } = member;
    if (shape.whole === null) return null;
    const end = topology.nodeOfHost[host + 1] as number;
    for (let node = topology.nodeOfHost[host] as number; node < end; node++) {
      const demand = demandOn(topology, shape.whole, node);
      if (!this.#holds.fitsBeside(plan.index, demand, node, amounts)) continue;
      if (shape.looseDevices.length > 0) return this.#anyOn(plan, member, host, amounts);
      const seats = [{ node, vcpus: shape.needs.vcpus, memoryMib: shape.needs.memoryMib }];
      const devices = shape.boundDevices.map((each) => ({ ...each, node, loose: false, bound: true }));
      return { member, host, seating: { seats, devices }, held: [{ node, demand }] };
    }
    return null;
  }

  /** In any way that the host offers. */
  #anyOn(plan: Plan, member: Member, host: number, amounts: Int32Array): Refuge | null {
    const { free, policy } = this.#world;
    if (!mightSeat({ ...free, amounts }, member.shape, host, policy)) return null;
    const [found] = seatingsOn(this.#roomBeside(plan, host, amounts), member.shape, host, policy);
    return found === undefined ? null : { member, host, ...found };
  }

  /** The host's room without what the plan holds there; nothing else in it may be looked at. */
  #roomBeside(plan: Plan, host: number, amounts: Int32Array): Room {
    const { stride, nodeOfHost } = this.#world.free.topology;
    const end = nodeOfHost[host + 1] as number;
    for (let node = nodeOfHost[host] as number; node < end; node++) {
      for (let i = 0; i < stride; i++) {
        const at = node * stride + i;
        this.#scratch.amounts[at] = (amounts[at] as number) - this.#holds.amount(plan.index, node, i);
      }
    }
    return this.#scratch;
  }
}

const NO_RULINGS: readonly Ruling[] = [];
