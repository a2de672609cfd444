// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import { demandOn, type Room } from '../fit/room.ts';
import { mayBeSpread, mightSeat, seatingsOn } from '../fit/seat.ts';
import type { PlacementPolicy, Vm } from '../model.ts';
import type { Groups, Ruling } from '../rule/groups.ts';
import type { Shape } from '../shape/shape.ts';
import { Holds } from './holds.ts';
import type { Loss } from './losses.ts';
import type { Member, Refuge } from './refuge.ts';
import { type Effort, enough, inOrder, type SearchWorld, search, type Verdict } from './search.ts';

/** Whether every loss would be survived; if not, one that would not, and whether that is proven. */
export interface Survival {
  readonly ok: boolean;
  readonly loss: string;
  readonly proven: boolean;
}

/** What the plans need of the cluster. */
export interface FailoverWorld {
  /** What is free now, nothing kept back. */
  readonly free: Room;
  readonly groups: Groups;
  readonly policy: PlacementPolicy;
}

/** The plan for one loss. */
interface Plan {
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

/**
 * For each loss that must be survived, a plan: where every HA VM of the lost hosts goes, so that the question "may this VM
 * come here?" is answered by looking at what the plans hold. Plans are mended where something is in their way, and made
 * anew, by trying everything, where mending fails.
 */
export class Failover {
  readonly #world: FailoverWorld;
  readonly #plans: readonly Plan[];
  readonly #plansOfHost: readonly (readonly Plan[])[];
  readonly #holds: Holds;
  readonly #scratch: Room;
  /** Where something was last kept back. */
  #spare = -1;
  /** Where a plan was last mended. */
  #lastMended = -1;
  #hostsWithRoom: Map<Shape, readonly number[]> | null = null;
  /** How often a VM was left without a place. */
  #homelessSeen = 0;

  constructor(losses: readonly Loss[], world: FailoverWorld) {
    const { topology } = world.free;
    this.#world = world;
    this.#holds = new Holds(topology);
    this.#scratch = { topology, amounts: new Int32Array(world.free.amounts.length) };
    this.#plans = losses.map((loss, index) => {
      const isLost = new Uint8Array(topology.hosts.length);
      for (const host of loss.hosts) isLost[host] = 1;
      return { loss, index, isLost, members: new Map(), refuges: new Map(), homeless: new Map(), lastHost: -1 };
    });
    const plansOfHost: Plan[][] = topology.hosts.map(() => []);
    for (const plan of this.#plans) for (const host of plan.loss.hosts) plansOfHost[host]?.push(plan);
    this.#plansOfHost = plansOfHost;
  }

  /** Nothing must be survived. */
  get isOff(): boolean {
    return this.#plans.length === 0;
  }

  /** Grows when VMs lose their place in a plan: what could not be survived before is then no reason to refuse any more. */
  get homelessSeen(): number {
    return this.#homelessSeen;
  }

  /** What must stay free: [node * stride + dimension]. */
  get reserve(): Int32Array {
    return this.#holds.reserve;
  }

  /** Plans with their refuges, those of the highest priority first. */
  plans(): readonly { readonly loss: Loss; readonly refuges: readonly Refuge[]; readonly homeless: readonly Vm[] }[] {
    return this.#plans.map(({ loss, refuges, homeless }) => ({
      loss,
      refuges: inOrder([...refuges.values()].map(({ member }) => member)).flatMap(({ vm }) => refuges.get(vm.id) ?? []),
      homeless: inOrder([...homeless.values()]).map(({ vm }) => vm),
    }));
  }

  /** Whether a VM that would be placed on its host has a place for each loss of that host, as the plans stand. Changes nothing. */
  hasRefuge(member: Member): boolean {
    const { amounts } = this.#world.free;
    return this.#plansOf(member.host).every((plan) => this.#find(plan, member, amounts, ANY) !== null);
  }

  /**
   * Whether every loss that is survived now would be if the room were `amounts`, which is less than it is on `nodes`, and if the
   * member were there. Used when the plans as they stand are in the way: others may exist. Changes nothing.
   */
  couldSurvive(amounts: Int32Array, nodes: readonly number[], member: Member, effort: Effort): Survival {
    return this.#withSameRoom(() => this.#couldSurvive(amounts, nodes, member, effort));
  }

  #couldSurvive(amounts: Int32Array, nodes: readonly number[], member: Member, effort: Effort): Survival {
    const broken = this.#plansAgainst(member.vm, member.host);
    const affected = new Set<Plan>([...broken, ...(member.vm.ha ? this.#plansOf(member.host) : [])]);
    for (const node of nodes) for (const plan of this.#brokenOn(node, amounts)) affected.add(plan);
    const total = totalOf(this.#world.free, amounts);
    for (const plan of affected) {
      const newcomer = member.vm.ha && plan.isLost[member.host] === 1 ? member : null;
      if (!broken.has(plan) && this.#mend(plan, amounts, newcomer, null)) continue;
      const housed = [...plan.members.values()].filter(({ vm }) => !plan.homeless.has(vm.id));
      const verdict = this.#planFor(plan, newcomer === null ? housed : [...housed, newcomer], amounts, total, effort);
      if (verdict.kind !== 'planned') {
        return { ok: false, loss: plan.loss.name, proven: verdict.kind === 'impossible' };
      }
    }
    return { ok: true, loss: '', proven: true };
  }

  /** Whether no plan has somebody where the rules forbid it once the VM is on the host. */
  keepsRules(vm: Vm, host: number): boolean {
    return vm.rules.length === 0 || this.#plansAgainst(vm, host).size === 0;
  }

  /** The VM is on the host: makes those plans anew whose rules that breaks. Returns the nodes on which other amounts are kept back now. */
  restoreRules(vm: Vm, host: number): ReadonlySet<number> {
    return this.#change((kept) => {
      for (const plan of this.#plansAgainst(vm, host)) this.#replan(plan, kept);
    });
  }

  /** The member was placed. Returns as `restoreRules`. */
  add(member: Member): ReadonlySet<number> {
    return this.#change((kept) => {
      for (const plan of this.#plansOf(member.host)) {
        plan.members.set(member.vm.id, member);
        const refuge = this.#find(plan, member, this.#world.free.amounts, LEAST);
        if (refuge === null) this.#replan(plan, kept);
        else this.#hold(plan, refuge, kept);
      }
    });
  }

  /** The VM is gone from its host. Returns as `restoreRules`. */
  remove(id: VmId, host: number): ReadonlySet<number> {
    return this.#change((kept) => {
      for (const plan of this.#plansOf(host)) {
        plan.members.delete(id);
        plan.homeless.delete(id);
        const refuge = plan.refuges.get(id);
        if (refuge !== undefined) this.#letGo(plan, refuge, kept);
      }
    });
  }

  /** Something was released: there may be a place for those that have none. Returns as `restoreRules`. */
  retry(): ReadonlySet<number> {
    return this.#change((kept) => {
      for (const plan of this.#plans) if (plan.homeless.size > 0) this.#replan(plan, kept);
    });
  }

  /** Less is free on the node: mends the plans that relied on it. Returns as `restoreRules`. */
  recheck(node: number): ReadonlySet<number> {
    const { amounts } = this.#world.free;
    return this.#change((kept) =>
      this.#withSameRoom(() => {
        for (const plan of this.#brokenOn(node, amounts)) {
          if (!this.#mend(plan, amounts, null, kept)) this.#replan(plan, kept);
        }
      }),
    );
  }

  #change(work: (kept: Kept) => void): ReadonlySet<number> {
    const kept: Kept = { touched: new Set(), changed: new Set() };
    work(kept);
    for (const node of kept.touched) this.#holds.settle(node, kept.changed);
    return kept.changed;
  }

  #plansAgainst(vm: Vm, host: number): ReadonlySet<Plan> {
    const { groups } = this.#world;
    const against = new Set<Plan>();
    for (const rule of vm.rules) {
      for (const [id, at] of groups.others(vm, rule)) {
        for (const plan of this.#plansOf(at)) {
          const refuge = plan.refuges.get(id);
          if (refuge === undefined || plan.isLost[host] === 1) continue;
          if (!groups.allows({ kind: rule.kind, hosts: [host] }, refuge.host)) against.add(plan);
        }
      }
    }
    return against;
  }

  #plansOf(host: number): readonly Plan[] {
    return this.#plansOfHost[host] ?? [];
  }

  #brokenOn(node: number, amounts: Int32Array): readonly Plan[] {
    return this.#holds
      .lossesOn(node)
      .flatMap((index) => (this.#holds.exceeds(index, node, amounts) ? [this.#plans[index] as Plan] : []));
  }

  // ------------------------------------------------------------------------------------------------- a place for one VM

  /** Rules of a VM under a loss: who was on a lost host is where the plan puts it, or nowhere. */
  #rulings(plan: Plan, member: Member, planned: ReadonlyMap<VmId, Refuge>): readonly Ruling[] {
    if (member.vm.rules.length === 0) return NO_RULINGS;
    const hostOf = (id: VmId, host: number) => (plan.isLost[host] === 1 ? (planned.get(id)?.host ?? -1) : host);
    return member.vm.rules.flatMap((rule) => this.#world.groups.ruling(member.vm, rule, false, hostOf) ?? []);
  }

  #mayGo(plan: Plan, { vm, shape }: Member, host: number, rulings: readonly Ruling[]): boolean {
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
  #find(plan: Plan, member: Member, amounts: Int32Array, want: typeof ANY | typeof LEAST): Refuge | null {
    const rulings = this.#rulings(plan, member, plan.refuges);
    const { topology } = this.#world.free;
    let best: Refuge | null = null;
    let bestGrowth = Number.POSITIVE_INFINITY;
    const ways = mayBeSpread(member.shape, topology) ? (['whole', 'any'] as const) : (['whole'] as const);
    for (const way of ways) {
      const consider = (host: number): boolean => {
        if (host < 0 || !this.#mayGo(plan, member, host, rulings)) return false;
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
      if (consider(plan.lastHost) || consider(this.#spare) || consider(this.#lastMended)) return best;
      for (const host of this.#hostsFor(member.shape, amounts)) if (consider(host)) break;
      if (best !== null) return best;
    }
    return null;
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
  #withSameRoom<T>(work: () => T): T {
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

  // -------------------------------------------------------------------------------------------------------- whole plans

  #hold(plan: Plan, refuge: Refuge, { changed }: Kept): void {
    plan.refuges.set(refuge.member.vm.id, refuge);
    plan.lastHost = refuge.host;
    this.#holds.shift(plan.index, refuge.held, 1);
    const before = changed.size;
    this.#holds.raise(plan.index, refuge.held, changed);
    if (changed.size > before) this.#spare = refuge.host;
  }

  #letGo(plan: Plan, refuge: Refuge, { touched }: Kept): void {
    plan.refuges.delete(refuge.member.vm.id);
    this.#holds.shift(plan.index, refuge.held, -1);
    for (const { node } of refuge.held) touched.add(node);
  }

  /**
   * Other places for VMs on nodes where the plan holds more than there is, and one for the newcomer: first for as few as must
   * go, then for all of these nodes. False, and all is as it was, when one of them finds none. Without `keep` all is as it was
   * in any case; with it, `touched` gets the nodes to settle.
   */
  #mend(plan: Plan, amounts: Int32Array, newcomer: Member | null, keep: Kept | null): boolean {
    const exceeded = new Set<number>();
    for (const { held } of plan.refuges.values()) {
      for (const { node } of held) if (this.#holds.exceeds(plan.index, node, amounts)) exceeded.add(node);
    }
    const there = [...plan.refuges.values()].filter(({ held }) => held.some(({ node }) => exceeded.has(node)));
    const few = this.#fewest(plan, amounts, there, exceeded);
    if (this.#move(plan, amounts, few, newcomer, keep)) return true;
    return few.length < there.length && this.#move(plan, amounts, there, newcomer, keep);
  }

  /** The smallest one that is enough by itself; otherwise from the smallest on, which find gaps, until it is enough. */
  #fewest(plan: Plan, amounts: Int32Array, there: readonly Refuge[], exceeded: ReadonlySet<number>): readonly Refuge[] {
    const enough = () => [...exceeded].every((node) => !this.#holds.exceeds(plan.index, node, amounts));
    if (exceeded.size === 0) return [];
    const bySize = there.toSorted((a, b) => a.member.vm.memoryMib - b.member.vm.memoryMib);
    for (const refuge of bySize) {
      this.#holds.shift(plan.index, refuge.held, -1);
      const isEnough = enough();
      this.#holds.shift(plan.index, refuge.held, 1);
      if (isEnough) return [refuge];
    }
    const gone: Refuge[] = [];
    for (const refuge of bySize) {
      if (enough()) break;
      this.#holds.shift(plan.index, refuge.held, -1);
      gone.push(refuge);
    }
    for (const refuge of gone) this.#holds.shift(plan.index, refuge.held, 1);
    return gone;
  }

  #move(
    plan: Plan,
    amounts: Int32Array,
    moved: readonly Refuge[],
    newcomer: Member | null,
    keep: Kept | null,
  ): boolean {
    for (const refuge of moved) {
      plan.refuges.delete(refuge.member.vm.id);
      this.#holds.shift(plan.index, refuge.held, -1);
    }
    const members = moved.map(({ member }) => member);
    const found: Refuge[] = [];
    for (const member of inOrder(newcomer === null ? members : [...members, newcomer])) {
      const refuge = this.#find(plan, member, amounts, keep === null ? ANY : LEAST);
      if (refuge === null) break;
      found.push(refuge);
      // What serves one loss serves the next: nothing more must be kept back for it.
      this.#lastMended = refuge.host;
      plan.refuges.set(member.vm.id, refuge);
      this.#holds.shift(plan.index, refuge.held, 1);
      if (keep !== null) this.#holds.raise(plan.index, refuge.held, keep.changed);
    }
    const complete = found.length === members.length + (newcomer === null ? 0 : 1);
    if (keep !== null) for (const { held } of [...moved, ...found]) for (const { node } of held) keep.touched.add(node);
    if (!complete || keep === null) {
      for (const refuge of found) {
        plan.refuges.delete(refuge.member.vm.id);
        this.#holds.shift(plan.index, refuge.held, -1);
      }
      for (const refuge of moved) {
        plan.refuges.set(refuge.member.vm.id, refuge);
        this.#holds.shift(plan.index, refuge.held, 1);
      }
    }
    return complete;
  }

  /** A new plan. When there is no place for all, those of the highest priority are served first. */
  #replan(plan: Plan, kept: Kept): void {
    for (const refuge of [...plan.refuges.values()]) this.#letGo(plan, refuge, kept);
    plan.homeless.clear();
    const { amounts } = this.#world.free;
    const members = [...plan.members.values()];
    const total = totalOf(this.#world.free, amounts);
    const effort = enough();
    const whole = this.#planFor(plan, members, amounts, total, effort);
    let refuges = whole.kind === 'planned' ? whole.refuges : [];
    if (whole.kind !== 'planned') {
      const served: Member[] = [];
      for (const member of inOrder(members)) {
        const verdict = this.#planFor(plan, [...served, member], amounts, total, enough());
        if (verdict.kind === 'planned') {
          served.push(member);
          refuges = verdict.refuges;
        } else {
          plan.homeless.set(member.vm.id, member);
          this.#homelessSeen++;
        }
      }
    }
    for (const refuge of refuges) this.#hold(plan, refuge, kept);
  }

  #planFor(plan: Plan, members: readonly Member[], amounts: Int32Array, total: Float64Array, effort: Effort): Verdict {
    if (!this.#volumeSuffices(plan, members, amounts, total)) return { kind: 'impossible' };
    const { topology } = this.#world.free;
    const world: SearchWorld = {
      policy: this.#world.policy,
      kinds: this.#kindsOfHosts(members),
      mayGo: (member, planned) => {
        const rulings = this.#rulings(plan, member, planned);
        return (host) => this.#mayGo(plan, member, host, rulings);
      },
    };
    return search(members, { topology, amounts }, world, effort);
  }

  #kindsOfHosts(members: readonly Member[]): readonly string[] | null {
    const ruled = ({ vm }: Member) => vm.pinnedHost !== '' || vm.rules.length > 0;
    if (members.some(ruled)) return null;
    const shapes = [...new Set(members.map(({ shape }) => shape))];
    const { hosts, nodeOfHost, hasGeneral } = this.#world.free.topology;
    return hosts.map((_, host) => {
      const admitted = shapes.map((shape) => shape.admits[host]).join('');
      return `${admitted} ${hasGeneral.subarray(nodeOfHost[host], nodeOfHost[host + 1]).join('')}`;
    });
  }

  /** A bound that costs little: what all of them take against all that is free on the hosts that are left. */
  #volumeSuffices(plan: Plan, members: readonly Member[], amounts: Int32Array, total: Float64Array): boolean {
    const { stride, nodeOfHost } = this.#world.free.topology;
    const need = new Float64Array(stride);
    for (const { shape } of members) {
      for (const { general, isolatedOnly } of shape.whole === null ? shape.cells : [shape.whole]) {
        general.dimensions.forEach((dimension, i) => {
          const other = isolatedOnly.dimensions.indexOf(dimension);
          const least = other < 0 ? 0 : Math.min(general.amounts[i] ?? 0, isolatedOnly.amounts[other] ?? 0);
          need[dimension] = (need[dimension] ?? 0) + least;
        });
      }
    }
    const have = total.slice();
    for (const host of plan.loss.hosts) {
      const end = (nodeOfHost[host + 1] as number) * stride;
      for (let at = (nodeOfHost[host] as number) * stride; at < end; at++) {
        have[at % stride] = (have[at % stride] as number) - Math.max(0, amounts[at] as number);
      }
    }
    return need.every((amount, dimension) => amount <= (have[dimension] as number));
  }
}

/** All that is free in the cluster, by dimension. */
function totalOf({ topology }: Room, amounts: Int32Array): Float64Array {
  const total = new Float64Array(topology.stride);
  for (let at = 0; at < amounts.length; at++) {
    total[at % topology.stride] = (total[at % topology.stride] as number) + Math.max(0, amounts[at] as number);
  }
  return total;
}

/** What a change of plans leaves behind: nodes to settle, and nodes on which other amounts are kept back. */
interface Kept {
  readonly touched: Set<number>;
  readonly changed: Set<number>;
}

const [ANY, LEAST] = ['any', 'least'] as const;
const NO_RULINGS: readonly Ruling[] = [];
