// SPDX-License-Identifier: Apache-2.0
import type { HostId, VmId } from '@busbar/core/ids';
import { ok, type Result, refuse } from '@busbar/core/result';
import { exactlyKeeping } from './capacity/exactly.ts';
import { Ledger } from './capacity/ledger.ts';
import { type Topology, topologyOf } from './capacity/topology.ts';
import { explainHost, type Inquiry, reasonOf, refusalOf } from './explain/explain.ts';
import { demandOn, type Room } from './fit/room.ts';
import { mayBeSpread, mightSeat, seatingsOn, seatWhole } from './fit/seat.ts';
import type { Seating } from './fit/seating.ts';
import type { HostVerdict, PlacedVm, Placement, PlacementPolicy, Refusal, Snapshot, Vm } from './model.ts';
import { Classes, type ShapeClass } from './rank/classes.ts';
import { Costs, WEIGHTS } from './rank/cost.ts';
import { Expectation } from './rank/mix.ts';
import { Changes } from './rank/ranked.ts';
import { Groups, type Ruling } from './rule/groups.ts';
import type { Shape } from './shape/shape.ts';
import { type Admission, Admissions } from './survive/admission.ts';
import { type Drill, drillsOf } from './survive/drill.ts';
import { Failover, SURVIVED } from './survive/failover.ts';
import { lossesOf } from './survive/losses.ts';
import { type Effort, enough } from './survive/search.ts';

/**
 * A cluster being filled: made from a snapshot, it knows what is free on every NUMA node, and keeps that up to date as VMs
 * come and go. Deterministic: the same snapshot and calls give the same answers. No I/O, no clock, no chance.
 *
 * Speed comes from two things that are kept and not made again: VMs of equal needs share a shape, and each shape has all
 * hosts ranked in a tournament tree, in which only the hosts that changed since its last use are judged anew.
 */
export class Planner {
  readonly #policy: PlacementPolicy;
  readonly #topology: Topology;
  readonly #ledger: Ledger;
  readonly #groups: Groups;
  readonly #failover: Failover;
  readonly #admission: Admissions;
  /** What is free and not kept back for a failure. */
  readonly #room: Room;
  readonly #free: Room;
  readonly #costs: Costs;
  readonly #placed = new Map<VmId, PlacedVm & { readonly shape: Shape }>();
  readonly #classes: Classes;
  readonly #changes: Changes;
  readonly #expectation = new Expectation();
  #releases = 0;

  constructor(snapshot: Snapshot) {
    this.#policy = snapshot.policy;
    this.#topology = topologyOf(snapshot.hosts, snapshot.policy);
    this.#ledger = new Ledger(this.#topology, snapshot.policy);
    this.#changes = new Changes(this.#topology.nodeIds.length);
    this.#groups = new Groups(this.#topology);
    this.#free = { topology: this.#topology, amounts: this.#ledger.free };
    const capacity = this.#ledger.free.slice();
    this.#room = { topology: this.#topology, amounts: this.#ledger.free.slice() };
    this.#costs = new Costs(this.#room, capacity, snapshot.policy);
    this.#failover = new Failover(lossesOf(this.#topology.hosts, snapshot.policy.survive), {
      free: this.#free,
      groups: this.#groups,
      policy: snapshot.policy,
    });
    this.#admission = new Admissions(this.#failover, this.#free, this.#groups, snapshot.policy);
    this.#classes = new Classes(this.#room, this.#costs, this.#changes, snapshot.policy);
    // What is there is there, whether or not it would be put there today: first all of it, then the plans.
    const placed = snapshot.placed.toSorted((a, b) => (a.vm.id < b.vm.id ? -1 : 1));
    for (const each of placed) {
      this.#hold(each);
      this.#expectation.add(this.#classes.of(each.vm).shape);
    }
    for (const { vm, placement } of placed) this.#protect(vm, placement);
    this.#learn();
  }

  /** Where the VM would go now. Takes nothing. A VM that is placed here is decided as if it were not. */
  decide(vm: Vm): Result<Placement, Refusal> {
    return this.without(vm.id, () => this.#decide(vm));
  }

  /** Decides and takes. */
  place(vm: Vm): Result<Placement, Refusal> {
    this.release(vm.id);
    const decided = this.#decide(vm);
    if (decided.ok) this.take({ vm, placement: decided.value });
    return decided;
  }

  /** Gives the VM what the placement says, whatever anybody thinks of it. Returns what is wrong with it, for people. */
  take(placed: PlacedVm): readonly string[] {
    this.release(placed.vm.id);
    const problems = this.#put(placed);
    this.#expectation.add(this.#classes.of(placed.vm).shape);
    this.#learn();
    return problems;
  }

  #put(placed: PlacedVm): readonly string[] {
    const problems = this.#hold(placed);
    this.#protect(placed.vm, placed.placement);
    return problems;
  }

  /** Frees what the VM holds; false when it holds nothing. */
  release(id: VmId): boolean {
    const held = this.#placed.get(id);
    if (held === undefined) return false;
    this.#releases++;
    this.#placed.delete(id);
    this.#ledger.release(held.vm, held.placement);
    this.#groups.remove(held.vm);
    const host = this.#topology.hostIndex.get(held.placement.host);
    if (host === undefined) return true;
    for (const node of this.#nodesOf(host)) this.#refresh(node);
    if (held.vm.ha) for (const node of this.#failover.remove(id, host)) this.#refresh(node);
    for (const node of this.#failover.retry()) this.#refresh(node);
    return true;
  }

  /** Does the work as if the VM were not there. */
  without<T>(id: VmId, work: () => T): T {
    const held = this.#placed.get(id);
    if (held === undefined) return work();
    this.release(id);
    try {
      return work();
    } finally {
      this.#put(held);
    }
  }

  /** Does the work as if the VM were there. */
  with<T>(placed: PlacedVm, work: () => T): T {
    this.#put(placed);
    try {
      return work();
    } finally {
      this.release(placed.vm.id);
    }
  }

  /** What holds resources, by id. */
  placed(): readonly PlacedVm[] {
    return [...this.#placed.values()].toSorted((a, b) => (a.vm.id < b.vm.id ? -1 : 1));
  }

  /** Cheap, for choosing what to try: false only when the VM certainly would not fit the other's host in its stead. */
  mightFitWithout(vm: Vm, { vm: other, placement }: PlacedVm): boolean {
    const { shape } = this.#classes.of(vm);
    const host = this.#topology.hostIndex.get(placement.host) ?? -1;
    if (shape.admits[host] !== 1) return false;
    const { whole } = shape;
    const freed = this.#classes.of(other).shape.whole;
    if (whole === null || freed === null || placement.cells.length > 1 || mayBeSpread(shape, this.#topology))
      return true;
    const there = this.#ledger.nodeOf(host, placement.cells[0]?.numaNode ?? -1);
    return this.#nodesOf(host).some((node) => {
      const gain = node === there ? demandOn(this.#topology, freed, node) : null;
      const need = demandOn(this.#topology, whole, node);
      return need.dimensions.every((dimension, i) => {
        const more = gain === null ? -1 : gain.dimensions.indexOf(dimension);
        const free = this.#ledger.free[node * this.#topology.stride + dimension] ?? 0;
        return free + (more < 0 ? 0 : (gain?.amounts[more] ?? 0)) >= (need.amounts[i] ?? 0);
      });
    });
  }

  /** The cost of a placement that is not taken, for comparing one with another. */
  costOf(vm: Vm, placement: Placement): number {
    const { shape } = this.#classes.of(vm);
    const host = this.#topology.hostIndex.get(placement.host) ?? -1;
    const nodes = placement.cells.map(({ numaNode }) => this.#ledger.nodeOf(host, numaNode));
    const [only] = nodes;
    const cost =
      nodes.length === 1 && only !== undefined && only >= 0 && shape.whole !== null
        ? this.#costs.whole(shape, only)
        : WEIGHTS.splitNuma * (nodes.length - 1);
    const broken = this.#rulings(vm, true).filter((ruling) => !this.#groups.allows(ruling, host)).length;
    const preference = vm.preferredHosts.indexOf(placement.host);
    const preferred = preference < 0 ? 0 : vm.preferredHosts.length - preference;
    return cost + WEIGHTS.softRule * broken - WEIGHTS.preferredHost * preferred;
  }

  /** What each host says, in the order of their ids. Slow and thorough: for people. */
  explain(vm: Vm): readonly HostVerdict[] {
    return this.without(vm.id, () => this.#explain(vm));
  }

  /** Why a placement that was just decided is what it is, in one line, for people. Slow in large clusters: then it says less. */
  reasonFor(vm: Vm, { host }: Placement): string {
    if (this.#topology.hosts.length > EXPLAINED_MAX) return `the best of ${this.#topology.hosts.length} hosts`;
    return reasonOf(this.explain(vm), host);
  }

  /** Placed VMs that hold what is not there, or what another one holds too: their hosts changed, or somebody erred. */
  problems(): readonly { readonly vm: Vm; readonly host: HostId; readonly what: readonly string[] }[] {
    // Counted anew: what was wrong when a VM came may have gone with another one.
    const ledger = new Ledger(this.#topology, this.#policy);
    return this.placed()
      .map(({ vm, placement }) => ({ vm, host: placement.host, what: ledger.take(vm, placement) }))
      .filter(({ what }) => what.length > 0);
  }

  /** What happens if this host, or what fails together with it, is lost. With the policy "off" nothing is planned: empty. */
  drills(): readonly Drill[] {
    const ledger = new Ledger(this.#topology, this.#policy);
    for (const { vm, placement } of this.#placed.values()) ledger.take(vm, placement);
    return drillsOf(this.#failover, ledger);
  }

  // --------------------------------------------------------------------------------------------------------- deciding

  #decide(vm: Vm): Result<Placement, Refusal> {
    const cls = this.#classes.of(vm);
    // What was refused stays refused until something is released: taking makes no room.
    const ruleless = vm.rules.length === 0 && vm.pinnedHost === '';
    const refused = cls.refused[vm.ha ? 'ha' : 'plain'];
    const releases = this.#releases + this.#failover.homelessSeen;
    if (ruleless && refused !== null && refused.releases === releases) return refuse(refused.refusal);
    const choice = this.#choose(vm, cls);
    if (choice !== null) return ok(this.#exactly(vm, cls.shape, choice));
    const refusal = refusalOf(() => this.explain(vm));
    if (ruleless) cls.refused[vm.ha ? 'ha' : 'plain'] = { releases, refusal };
    return refuse(refusal);
  }

  #exactly(vm: Vm, shape: Shape, { host, seating }: Choice): Placement {
    return exactlyKeeping(this.#ledger, vm, shape, host, seating, () => this.#failover.isIntactOn(host));
  }

  #explain(vm: Vm): readonly HostVerdict[] {
    const { shape } = this.#classes.of(vm);
    const effort = enough(true);
    const inquiry: Inquiry = {
      vm,
      shape,
      ledger: this.#ledger,
      free: this.#free,
      groups: this.#groups,
      policy: this.#policy,
      costs: this.#costs,
      survives: (host) => (this.#failover.isOff ? SURVIVED : this.#survives(vm, shape, host, effort)),
      vmName: (id) => this.#placed.get(id as VmId)?.vm.name ?? id,
    };
    return this.#topology.hosts.map((_, host) => explainHost(inquiry, host));
  }

  #choose(vm: Vm, cls: ShapeClass): Choice | null {
    const hard = this.#rulings(vm, false);
    const may = (host: number): boolean => {
      if (vm.pinnedHost !== '' && this.#topology.hosts[host]?.id !== vm.pinnedHost) return false;
      for (const ruling of hard) if (!this.#groups.allows(ruling, host)) return false;
      if (!this.#failover.keepsRules(vm, host)) return false;
      return !vm.ha || this.#failover.hasRefuge({ vm, shape: cls.shape, host });
    };
    const host = this.#bestHost(vm, cls, may);
    const seating = host < 0 ? null : this.#seat(cls.shape, host);
    if (seating !== null) return { host, seating };
    return this.#failover.isOff ? null : this.#chooseWithOtherPlans(vm, cls);
  }

  /** The best host beside what the plans keep back as they stand; -1 when there is none. */
  #bestHost(vm: Vm, cls: ShapeClass, may: (host: number) => boolean): number {
    const soft = this.#rulings(vm, true);
    if (vm.pinnedHost !== '' || vm.preferredHosts.length > 0 || soft.length > 0)
      return this.#bestByWish(vm, cls, soft, may);
    const whole = this.#classes.whole(cls).first(may);
    // Only when no NUMA node of the cluster takes it whole.
    return whole >= 0 || !cls.spreads ? whole : this.#classes.spread(cls).first(may);
  }

  /** With wishes of its own, a VM has its own order of hosts. */
  #bestByWish(vm: Vm, cls: ShapeClass, soft: readonly Ruling[], may: (host: number) => boolean): number {
    const whole = this.#classes.whole(cls);
    const spread = cls.spreads ? this.#classes.spread(cls) : whole;
    const priced: { readonly host: number; readonly price: number }[] = [];
    for (const [host, { id }] of this.#topology.hosts.entries()) {
      if (vm.pinnedHost !== '' && vm.pinnedHost !== id) continue;
      const onOne = whole.costs[host] as number;
      const cost = onOne === Number.POSITIVE_INFINITY ? (spread.costs[host] as number) : onOne;
      if (cost === Number.POSITIVE_INFINITY) continue;
      const broken = soft.filter((ruling) => !this.#groups.allows(ruling, host)).length;
      const preference = vm.preferredHosts.indexOf(id);
      const preferred = preference < 0 ? 0 : vm.preferredHosts.length - preference;
      priced.push({ host, price: cost + WEIGHTS.softRule * broken - WEIGHTS.preferredHost * preferred });
    }
    priced.sort((a, b) => a.price - b.price || a.host - b.host);
    return priced.find(({ host }) => may(host))?.host ?? -1;
  }

  /** No host fits beside what the plans keep back as they stand. Other plans may exist: looks for the first host that has them. */
  #chooseWithOtherPlans(vm: Vm, cls: ShapeClass): Choice | null {
    const effort = enough();
    const hard = this.#rulings(vm, false);
    for (let host = 0; host < this.#topology.hosts.length; host++) {
      if (cls.shape.admits[host] !== 1 || (vm.pinnedHost !== '' && this.#topology.hosts[host]?.id !== vm.pinnedHost))
        continue;
      if (hard.some((ruling) => !this.#groups.allows(ruling, host))) continue;
      if (!mightSeat(this.#free, cls.shape, host, this.#policy)) continue;
      const { seating } = this.#survives(vm, cls.shape, host, effort);
      if (seating !== null) return { host, seating };
      if (effort.left < 0) return null;
    }
    return null;
  }

  /** Whether all losses can be survived with the VM on this host, with whatever plans; and then, where on the host. */
  #survives(vm: Vm, shape: Shape, host: number, effort: Effort): Admission {
    // Beside the plans as they stand, with whatever seating they leave.
    const asPlanned = this.#seat(shape, host);
    if (asPlanned !== null && this.#failover.keepsRules(vm, host)) {
      if (!vm.ha || this.#failover.hasRefuge({ vm, shape, host })) return { ...SURVIVED, seating: asPlanned };
    }
    return this.#admission.withAnyPlans({ vm, shape, host }, effort);
  }

  #rulings(vm: Vm, soft: boolean): readonly Ruling[] {
    if (vm.rules.length === 0) return NO_RULINGS;
    return vm.rules.flatMap((rule) => this.#groups.ruling(vm, rule, soft) ?? []);
  }

  #seat(shape: Shape, host: number): Seating | null {
    const node = this.#costs.cheapest(shape, host);
    const best = node < 0 ? null : seatWhole(this.#room, shape, host, node);
    if (best !== null) return best;
    for (const { seating } of seatingsOn(this.#room, shape, host, this.#policy)) return seating;
    return null;
  }

  // ------------------------------------------------------------------------------------------------------- what is held

  #hold(placed: PlacedVm): readonly string[] {
    const { vm, placement } = placed;
    const { shape } = this.#classes.of(vm);
    const problems = this.#ledger.take(vm, placement);
    this.#placed.set(vm.id, { vm, placement, shape });
    const host = this.#topology.hostIndex.get(placement.host);
    if (host === undefined) return problems;
    this.#groups.add(vm, host);
    for (const cell of placement.cells) {
      const node = this.#ledger.nodeOf(host, cell.numaNode);
      if (node >= 0) this.#refresh(node);
    }
    // Devices may be anywhere, and where something is wrong so may all else.
    const elsewhere = placement.devices.length + placement.emulatorCpus.length + problems.length > 0;
    if (elsewhere) for (const node of this.#nodesOf(host)) this.#refresh(node);
    return problems;
  }

  /** Plans for the failure of its host, and repairs plans that relied on what it took. */
  #protect(vm: Vm, placement: Placement): void {
    const host = this.#topology.hostIndex.get(placement.host);
    if (host === undefined || this.#failover.isOff) return;
    for (const node of this.#nodesOf(host)) for (const changed of this.#failover.recheck(node)) this.#refresh(changed);
    for (const changed of this.#failover.restoreRules(vm, host)) this.#refresh(changed);
    if (!vm.ha) return;
    const { shape } = this.#classes.of(vm);
    for (const changed of this.#failover.add({ vm, shape, host })) this.#refresh(changed);
  }

  #nodesOf(host: number): readonly number[] {
    const first = this.#topology.nodeOfHost[host] ?? 0;
    return Array.from({ length: (this.#topology.nodeOfHost[host + 1] ?? 0) - first }, (_, i) => first + i);
  }

  #refresh(node: number): void {
    const { stride } = this.#topology;
    const { reserve } = this.#failover;
    for (let at = node * stride; at < (node + 1) * stride; at++) {
      this.#room.amounts[at] = (this.#ledger.free[at] as number) - (reserve[at] as number);
    }
    this.#costs.refresh(node);
    this.#changes.note(node);
    // With even load wanted, what is used of one node counts for all of its host.
    if (this.#policy.prefer === 'spread') {
      for (const other of this.#nodesOf(this.#topology.hostOfNode[node] ?? 0))
        if (other !== node) this.#changes.note(other);
    }
  }

  #learn(): void {
    const mix = this.#expectation.renewed();
    if (mix === null) return;
    this.#costs.setMix(mix);
    this.#changes.voidAll();
  }
}

interface Choice {
  readonly host: number;
  readonly seating: Seating;
}

/** Hosts asked for their reasons with every start: 1 ms. */
const EXPLAINED_MAX = 64;
const NO_RULINGS: readonly Ruling[] = [];

export function createPlanner(snapshot: Snapshot): Planner {
  return new Planner(snapshot);
}
