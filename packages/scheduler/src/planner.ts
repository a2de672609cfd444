// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import type { HostId, VmId } from '@busbar/core/ids';
import { ok, type Result, refuse } from '@busbar/core/result';
import { GENERAL, ISOLATED } from './capacity/dimensions.ts';
import { Ledger } from './capacity/ledger.ts';
import { type Topology, topologyOf } from './capacity/topology.ts';
import { explainHost, hostRefusals, type Inquiry, summaryOf } from './explain/explain.ts';
import type { Room } from './fit/room.ts';
import { mayBeSpread, mightSeat, seatingsOn, seatWhole } from './fit/seat.ts';
import type { Seating } from './fit/seating.ts';
import { seatSpread } from './fit/spread.ts';
import type { HostVerdict, PlacedVm, Placement, PlacementPolicy, Refusal, Snapshot, Vm } from './model.ts';
import { Costs, WEIGHTS } from './rank/cost.ts';
import { isLike, type Mix, mixOf } from './rank/mix.ts';
import { Changes, Ranked } from './rank/ranked.ts';
import type { Ranking } from './rank/ranking.ts';
import { Groups, type Ruling } from './rule/groups.ts';
import { type Shape, shapeKey, shapeOf } from './shape/shape.ts';
import { Failover, type Survival } from './survive/failover.ts';
import { lossesOf } from './survive/losses.ts';
import { type Effort, enough } from './survive/search.ts';

/** What a loss would do to the VMs of its hosts. */
export interface Drill {
  /** "host1", or a failure domain with its hosts. */
  readonly loss: string;
  readonly hosts: readonly HostId[];
  /** Where each HA VM would go, those of the highest priority first. */
  readonly moves: readonly { readonly vm: Vm; readonly placement: Placement }[];
  /** HA VMs that have no place. */
  readonly homeless: readonly Vm[];
}

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
  /** What is free and not kept back for a failure. */
  readonly #room: Room;
  readonly #free: Room;
  readonly #costs: Costs;
  readonly #placed = new Map<VmId, PlacedVm & { readonly shape: Shape; readonly problems: readonly string[] }>();
  readonly #classes = new Map<string, ShapeClass>();
  readonly #counts = new Map<Shape, number>();
  readonly #changes: Changes;
  /** Decisions until the expected mix is looked at again: it grows with what is known. */
  #mixDueAt = 0;
  #mix: Mix = { shapes: [], weights: new Float64Array() };
  #taken = 0;
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
      admits: (shape, host) => this.#classOfShape(shape).admits[host] === 1,
    });
    // What is there is there, whether or not it would be put there today: first all of it, then the plans.
    const placed = snapshot.placed.toSorted((a, b) => (a.vm.id < b.vm.id ? -1 : 1));
    for (const each of placed) this.#hold(each);
    for (const { vm, placement } of placed) this.#protect(vm, placement);
    this.#learn();
  }

  /** Where the VM would go now. Takes nothing. A VM that is placed here is decided as if it were not. */
  decide(vm: Vm): Result<Placement, Refusal> {
    return this.#without(vm.id, () => this.#decide(vm));
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
    const problems = this.#hold(placed);
    this.#protect(placed.vm, placed.placement);
    this.#taken++;
    if (this.#taken >= this.#mixDueAt) this.#learn();
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

  /** What each host says, in the order of their ids. Slow and thorough: for people. */
  explain(vm: Vm): readonly HostVerdict[] {
    return this.#without(vm.id, () => this.#explain(vm));
  }

  /** Placed VMs that hold what is not there, or what another one holds too: their hosts changed, or somebody erred. */
  problems(): readonly { readonly vm: Vm; readonly host: HostId; readonly what: readonly string[] }[] {
    return [...this.#placed.values()]
      .filter(({ problems }) => problems.length > 0)
      .map(({ vm, placement, problems }) => ({ vm, host: placement.host, what: problems }));
  }

  /** What happens if this host, or what fails together with it, is lost. With the policy "off" nothing is planned: empty. */
  drills(): readonly Drill[] {
    return this.#failover.plans().map(({ loss, refuges, homeless }) => {
      const ledger = new Ledger(this.#topology, this.#policy);
      for (const { vm, placement } of this.#placed.values()) ledger.take(vm, placement);
      const moves = refuges.map(({ member: { vm, shape }, host, seating }) => {
        const placement = this.#exact(shape, host, seating, ledger);
        ledger.take(vm, placement);
        return { vm, placement };
      });
      return {
        loss: loss.name,
        hosts: loss.hosts.map((host) => this.#topology.hosts[host]?.id as HostId),
        moves,
        homeless,
      };
    });
  }

  // --------------------------------------------------------------------------------------------------------- deciding

  #decide(vm: Vm): Result<Placement, Refusal> {
    const cls = this.#classOf(vm);
    // What was refused stays refused until something is released: taking makes no room.
    const ruleless = vm.rules.length === 0 && vm.pinnedHost === '';
    if (ruleless && cls.refused !== null && cls.refused.releases === this.#releases) return refuse(cls.refused.refusal);
    const choice = this.#choose(vm, cls);
    if (choice !== null) return ok(this.#exact(cls.shape, choice.host, choice.seating, this.#ledger));
    const refusal = { summary: summaryOf(this.#explain(vm)) };
    if (ruleless) cls.refused = { releases: this.#releases, refusal };
    return refuse(refusal);
  }

  #explain(vm: Vm): readonly HostVerdict[] {
    const { shape } = this.#classOf(vm);
    const effort = enough();
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
    const whole = firstOf(cls.whole.upToDate(), may);
    // Only when no NUMA node of the cluster takes it whole.
    return whole >= 0 || !cls.spreads ? whole : firstOf(cls.spread.upToDate(), may);
  }

  /** With wishes of its own, a VM has its own order of hosts. */
  #bestByWish(vm: Vm, cls: ShapeClass, soft: readonly Ruling[], may: (host: number) => boolean): number {
    const whole = cls.whole.upToDate();
    const spread = cls.spreads ? cls.spread.upToDate() : whole;
    const priced: { readonly host: number; readonly price: number }[] = [];
    for (const [host, { id }] of this.#topology.hosts.entries()) {
      const cost = Math.min(whole.costs[host] as number, spread.costs[host] as number);
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
      if (cls.admits[host] !== 1 || (vm.pinnedHost !== '' && this.#topology.hosts[host]?.id !== vm.pinnedHost))
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
  #survives(vm: Vm, shape: Shape, host: number, effort: Effort): Survival & { readonly seating: Seating | null } {
    let why: Survival = { ok: false, loss: '', proven: true };
    for (const { seating, held } of seatingsOn(this.#free, shape, host, this.#policy)) {
      const amounts = this.#free.amounts.slice();
      for (const { node, demand } of held) {
        demand.dimensions.forEach((dimension, i) => {
          const at = node * this.#topology.stride + dimension;
          amounts[at] = (amounts[at] ?? 0) - (demand.amounts[i] ?? 0);
        });
      }
      const nodes = [...new Set(held.map(({ node }) => node))];
      why = this.#failover.couldSurvive(amounts, nodes, vm.ha ? { vm, shape, host } : null, effort);
      if (why.ok) return { ...why, seating };
    }
    return { ...why, seating: null };
  }

  #rulings(vm: Vm, soft: boolean): readonly Ruling[] {
    if (vm.rules.length === 0) return NO_RULINGS;
    return vm.rules.flatMap((rule) => {
      const ruling = rule.soft === soft ? this.#groups.ruling(vm, rule) : null;
      return ruling === null ? [] : [ruling];
    });
  }

  #seat(shape: Shape, host: number): Seating | null {
    const node = this.#costs.cheapest(shape, host);
    const best = node < 0 ? null : seatWhole(this.#room, shape, host, node);
    if (best !== null) return best;
    for (const { seating } of seatingsOn(this.#room, shape, host, this.#policy)) return seating;
    return null;
  }

  /** From nodes to CPUs and addresses. */
  #exact(shape: Shape, host: number, seating: Seating, ledger: Ledger): Placement {
    const { needs } = shape;
    const { nodeIds, hosts, hasGeneral } = this.#topology;
    const pool = needs.cpuPolicy === 'realtime' ? ISOLATED : GENERAL;
    const cells = seating.seats.map(({ node, vcpus, memoryMib }) => ({
      numaNode: nodeIds[node] ?? 0,
      vcpus,
      cpus: needs.cpuPolicy === 'shared' ? [] : ledger.pick(node, pool, vcpus, needs.smt),
      memoryMib,
    }));
    const first = seating.seats[0]?.node ?? 0;
    const extraPool = hasGeneral[first] === 1 ? GENERAL : ISOLATED;
    const blocked = extraPool === pool ? ledger.blockedBy(first, cells[0]?.cpus ?? [], needs.smt) : [];
    const extra = shape.extraCpus === 0 ? [] : ledger.pick(first, extraPool, shape.extraCpus, 'prefer', blocked);
    return {
      host: hosts[host]?.id as HostId,
      cells,
      emulatorCpus: extra.slice(0, 1),
      ioThreadCpus: extra.slice(1),
      devices: ledger.pickDevices(host, seating.devices),
    };
  }

  // ------------------------------------------------------------------------------------------------------- what is held

  #hold(placed: PlacedVm): readonly string[] {
    const { vm, placement } = placed;
    const { shape } = this.#classOf(vm);
    const problems = this.#ledger.take(vm, placement);
    this.#placed.set(vm.id, { vm, placement, shape, problems });
    this.#counts.set(shape, (this.#counts.get(shape) ?? 0) + 1);
    const host = this.#topology.hostIndex.get(placement.host);
    if (host === undefined) return problems;
    this.#groups.add(vm, host);
    for (const cell of placement.cells) {
      const node = this.#ledger.nodeOf(host, cell.numaNode);
      if (node >= 0) this.#refresh(node);
    }
    // A device that nobody knows the node of is counted at the first one.
    if (placement.devices.length > 0) for (const node of this.#nodesOf(host)) this.#refresh(node);
    return problems;
  }

  /** Plans for the failure of its host, and repairs plans that relied on what it took. */
  #protect(vm: Vm, placement: Placement): void {
    const host = this.#topology.hostIndex.get(placement.host);
    if (host === undefined || this.#failover.isOff) return;
    for (const node of this.#nodesOf(host)) for (const changed of this.#failover.recheck(node)) this.#refresh(changed);
    if (!vm.ha) return;
    const { shape } = this.#classOf(vm);
    for (const changed of this.#failover.add({ vm, shape, host })) this.#refresh(changed);
  }

  #without<T>(id: VmId, work: () => T): T {
    const held = this.#placed.get(id);
    if (held === undefined) return work();
    this.release(id);
    try {
      return work();
    } finally {
      this.take(held);
    }
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
  }

  // ---------------------------------------------------------------------------------------------------------- classes

  #classOf(vm: Vm): ShapeClass {
    const key = shapeKey(vm);
    const known = this.#classes.get(key);
    if (known !== undefined) return known;
    const topology = this.#topology;
    const shape = shapeOf(vm, this.#classes.size, this.#policy, topology.deviceClasses);
    const admits = Uint8Array.from(topology.hosts, (host) =>
      // Pinning is a VM's own affair.
      hostRefusals({ ...vm, pinnedHost: '' }, shape, host).length === 0 ? 1 : 0,
    );
    const nodeCosts = new Float64Array(topology.nodeIds.length);
    const cls: ShapeClass = {
      shape,
      admits,
      whole: new Ranked(
        this.#room,
        this.#changes,
        (node, like) => {
          nodeCosts[node] = like >= 0 ? (nodeCosts[like] as number) : this.#costs.whole(shape, node);
        },
        (host) => (admits[host] === 1 ? this.#wholeCost(shape, host, nodeCosts) : Number.POSITIVE_INFINITY),
      ),
      spread: new Ranked(
        this.#room,
        this.#changes,
        () => {},
        (host) => (admits[host] === 1 ? this.#spreadCost(shape, host) : Number.POSITIVE_INFINITY),
      ),
      spreads: mayBeSpread(shape, topology),
      refused: null,
    };
    this.#classes.set(key, cls);
    this.#byShape.set(shape, cls);
    return cls;
  }

  readonly #byShape = new Map<Shape, ShapeClass>();

  #classOfShape(shape: Shape): ShapeClass {
    const cls = this.#byShape.get(shape);
    assert(cls !== undefined, 'a shape has a class');
    return cls;
  }

  #wholeCost(shape: Shape, host: number, nodeCosts: Float64Array): number {
    const { nodeOfHost } = this.#topology;
    const end = nodeOfHost[host + 1] as number;
    let least = Number.POSITIVE_INFINITY;
    let best = -1;
    for (let node = nodeOfHost[host] as number; node < end; node++) {
      const cost = nodeCosts[node] as number;
      if (cost < least) [least, best] = [cost, node];
    }
    if (best < 0 || shape.looseDevices.length === 0) return least;
    return seatWhole(this.#room, shape, host, best) === null ? Number.POSITIVE_INFINITY : least;
  }

  #spreadCost(shape: Shape, host: number): number {
    const seating = seatSpread(this.#room, shape, host, this.#policy);
    if (seating === null) return Number.POSITIVE_INFINITY;
    const avoidable = shape.cells.length === 0 ? seating.seats.length - 1 : 0;
    return seating.seats.reduce((sum, seat) => sum + this.#costs.emptiness(seat.node), WEIGHTS.splitNuma * avoidable);
  }

  /** Looks at what is asked for, whenever there is half as much more of it. Small changes are not worth judging all hosts anew. */
  #learn(): void {
    this.#mixDueAt = Math.max(8, Math.ceil(1.5 * this.#taken));
    const mix = mixOf(this.#counts);
    if (isLike(mix, this.#mix)) return;
    this.#mix = mix;
    this.#costs.setMix(mix);
    this.#changes.voidAll();
  }
}

interface Choice {
  readonly host: number;
  readonly seating: Seating;
}

interface ShapeClass {
  readonly shape: Shape;
  /** 1: state, labels, networks and device classes of the host are right. */
  readonly admits: Uint8Array;
  /** Hosts with a NUMA node that takes the VM whole. */
  readonly whole: Ranked;
  /** Hosts that take it on several nodes. */
  readonly spread: Ranked;
  /** There may be such. */
  readonly spreads: boolean;
  /** What was said last time, and how many releases there had been. */
  refused: { readonly releases: number; readonly refusal: Refusal } | null;
}

const NO_RULINGS: readonly Ruling[] = [];
const SURVIVED: Survival = { ok: true, loss: '', proven: true };

function firstOf(ranking: Ranking, may: (host: number) => boolean): number {
  const best = ranking.best();
  // Nearly always; the rest is worth a generator.
  if (best < 0 || may(best)) return best;
  for (const host of ranking.inOrder()) if (host !== best && may(host)) return host;
  return -1;
}

export function createPlanner(snapshot: Snapshot): Planner {
  return new Planner(snapshot);
}
