// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import type { Vm } from '../model.ts';
import { kindsOfHosts, totalOf, volumeSuffices } from './bounds.ts';
import { ANY, type FailoverWorld, Finder, LEAST, type Plan } from './finder.ts';
import { Holds } from './holds.ts';
import type { Loss } from './losses.ts';
import type { Member, Refuge } from './refuge.ts';
import { type Effort, enough, inOrder, type SearchWorld, search, type Verdict } from './search.ts';

/** Whether every loss would be survived; if not, one that would not, and whether that is proven. */
export interface Survival {
  readonly ok: boolean;
  readonly loss: string;
  readonly proven: boolean;
  /** Names of VMs that would have no place then; empty when nobody asked for them. */
  readonly homeless: readonly string[];
}

export const SURVIVED: Survival = { ok: true, loss: '', proven: true, homeless: [] };

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
  readonly #finder: Finder;
  /** How plans were last found to be mendable, so that it need not be found again a moment later. Void after any change. */
  readonly #proposals = new Map<Plan, { readonly moved: readonly Refuge[]; readonly found: readonly Refuge[] }>();
  /** How often a VM was left without a place. */
  #homelessSeen = 0;

  constructor(losses: readonly Loss[], world: FailoverWorld) {
    const { topology } = world.free;
    this.#world = world;
    this.#holds = new Holds(topology);
    this.#finder = new Finder(world, this.#holds);
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
    return this.#plansOf(member.host).every((plan) => this.#finder.find(plan, member, amounts, ANY) !== null);
  }

  /**
   * Whether every loss that is survived now would be if the room were `amounts`, which is less than it is on `nodes`, and if the
   * member were there. Used when the plans as they stand are in the way: others may exist. Changes nothing.
   */
  couldSurvive(amounts: Int32Array, nodes: readonly number[], member: Member, effort: Effort): Survival {
    this.#proposals.clear();
    return this.#finder.withSameRoom(() => this.#couldSurvive(amounts, nodes, member, effort));
  }

  #couldSurvive(amounts: Int32Array, nodes: readonly number[], member: Member, effort: Effort): Survival {
    const broken = this.#plansAgainst(member.vm, member.host);
    const affected = new Set<Plan>([...broken, ...(member.vm.ha ? this.#plansOf(member.host) : [])]);
    for (const node of nodes) for (const plan of this.#brokenOn(node, amounts)) affected.add(plan);
    const total = totalOf(this.#world.free.topology, amounts);
    for (const plan of affected) {
      const newcomer = member.vm.ha && plan.isLost[member.host] === 1 ? member : null;
      if (!broken.has(plan) && this.#mend(plan, amounts, newcomer, null)) continue;
      const housed = [...plan.members.values()].filter(({ vm }) => !plan.homeless.has(vm.id));
      const verdict = this.#planFor(plan, newcomer === null ? housed : [...housed, newcomer], amounts, total, effort);
      if (verdict.kind !== 'planned') {
        const all = newcomer === null ? housed : [...housed, newcomer];
        const homeless = effort.isNaming ? this.#serve(plan, all, amounts).homeless.map(({ vm }) => vm.name) : [];
        return { ok: false, loss: plan.loss.name, proven: verdict.kind === 'impossible', homeless };
      }
    }
    return SURVIVED;
  }

  /** Whether all plans have on the host what they hold there. */
  isIntactOn(host: number): boolean {
    const { amounts, topology } = this.#world.free;
    for (let node = topology.nodeOfHost[host] ?? 0; node < (topology.nodeOfHost[host + 1] ?? 0); node++) {
      if (this.#brokenOn(node, amounts).length > 0) return false;
    }
    return true;
  }

  /** Whether no plan has somebody where the rules forbid it once the VM is on the host. */
  keepsRules(vm: Vm, host: number): boolean {
    return vm.rules.length === 0 || this.#plansAgainst(vm, host).size === 0;
  }

  /** The VM is on the host: makes those plans anew whose rules that breaks. Returns the nodes on which other amounts are kept back now. */
  restoreRules(vm: Vm, host: number): ReadonlySet<number> {
    this.#proposals.clear();
    return this.#change((kept) => {
      for (const plan of this.#plansAgainst(vm, host)) this.#replan(plan, kept);
    });
  }

  /** The member was placed. Returns as `restoreRules`. */
  add(member: Member): ReadonlySet<number> {
    this.#proposals.clear();
    return this.#change((kept) => {
      for (const plan of this.#plansOf(member.host)) {
        plan.members.set(member.vm.id, member);
        const refuge = this.#finder.find(plan, member, this.#world.free.amounts, LEAST);
        if (refuge === null) this.#replan(plan, kept);
        else this.#hold(plan, refuge, kept);
      }
    });
  }

  /** The VM is gone from its host. Returns as `restoreRules`. */
  remove(id: VmId, host: number): ReadonlySet<number> {
    this.#proposals.clear();
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
      this.#finder.withSameRoom(() => {
        for (const plan of this.#brokenOn(node, amounts)) {
          const isMended = this.#adopt(plan, amounts, kept) || this.#mend(plan, amounts, null, kept);
          if (!isMended) this.#replan(plan, kept);
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

  // -------------------------------------------------------------------------------------------------------- whole plans

  #hold(plan: Plan, refuge: Refuge, { changed }: Kept): void {
    plan.refuges.set(refuge.member.vm.id, refuge);
    plan.lastHost = refuge.host;
    this.#holds.shift(plan.index, refuge.held, 1);
    const before = changed.size;
    this.#holds.raise(plan.index, refuge.held, changed);
    if (changed.size > before) this.#finder.noteSpare(refuge.host);
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

  /** Mends a plan as it was found to be possible when the VM that is in the way was decided. False, and all is as it was, if not. */
  #adopt(plan: Plan, amounts: Int32Array, { touched, changed }: Kept): boolean {
    const proposal = this.#proposals.get(plan);
    if (proposal === undefined) return false;
    this.#proposals.delete(plan);
    const { moved, found } = proposal;
    if (moved.some((refuge) => plan.refuges.get(refuge.member.vm.id) !== refuge)) return false;
    for (const { held } of moved) this.#holds.shift(plan.index, held, -1);
    for (const { held } of found) this.#holds.shift(plan.index, held, 1);
    const nodes = new Set([...moved, ...found].flatMap(({ held }) => held.map(({ node }) => node)));
    if ([...nodes].some((node) => this.#holds.exceeds(plan.index, node, amounts))) {
      for (const { held } of found) this.#holds.shift(plan.index, held, -1);
      for (const { held } of moved) this.#holds.shift(plan.index, held, 1);
      return false;
    }
    for (const refuge of found) {
      plan.refuges.set(refuge.member.vm.id, refuge);
      this.#holds.raise(plan.index, refuge.held, changed);
      this.#finder.noteSpare(refuge.host);
    }
    for (const node of nodes) touched.add(node);
    return true;
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
      const refuge = this.#finder.find(plan, member, amounts, keep === null ? ANY : LEAST);
      if (refuge === null) break;
      found.push(refuge);
      // What serves one loss serves the next: nothing more must be kept back for it.
      this.#finder.lastMended = refuge.host;
      plan.refuges.set(member.vm.id, refuge);
      this.#holds.shift(plan.index, refuge.held, 1);
      if (keep === null) continue;
      this.#holds.raise(plan.index, refuge.held, keep.changed);
      this.#finder.noteSpare(refuge.host);
    }
    const complete = found.length === members.length + (newcomer === null ? 0 : 1);
    if (keep !== null) for (const { held } of [...moved, ...found]) for (const { node } of held) keep.touched.add(node);
    if (complete && keep === null)
      this.#proposals.set(plan, { moved, found: found.filter(({ member }) => member !== newcomer) });
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
    const { refuges, homeless } = this.#serve(plan, [...plan.members.values()], this.#world.free.amounts);
    for (const member of homeless) plan.homeless.set(member.vm.id, member);
    this.#homelessSeen += homeless.length;
    for (const refuge of refuges) this.#hold(plan, refuge, kept);
  }

  /** Places for all of them, or, when there are none, for as many as one after the other can have one. */
  #serve(
    plan: Plan,
    members: readonly Member[],
    amounts: Int32Array,
  ): { readonly refuges: readonly Refuge[]; readonly homeless: readonly Member[] } {
    const total = totalOf(this.#world.free.topology, amounts);
    const whole = this.#planFor(plan, members, amounts, total, enough());
    if (whole.kind === 'planned') return { refuges: whole.refuges, homeless: [] };
    const served: Member[] = [];
    const homeless: Member[] = [];
    let refuges: readonly Refuge[] = [];
    for (const member of inOrder(members)) {
      const verdict = this.#planFor(plan, [...served, member], amounts, total, enough());
      if (verdict.kind === 'planned') {
        served.push(member);
        refuges = verdict.refuges;
      } else {
        homeless.push(member);
      }
    }
    return { refuges, homeless };
  }

  #planFor(plan: Plan, members: readonly Member[], amounts: Int32Array, total: Float64Array, effort: Effort): Verdict {
    if (!volumeSuffices(this.#world.free.topology, plan.loss, members, amounts, total)) return { kind: 'impossible' };
    const { topology } = this.#world.free;
    const world: SearchWorld = {
      policy: this.#world.policy,
      kinds: kindsOfHosts(topology, members),
      mayGo: (member, planned) => {
        const rulings = this.#finder.rulings(plan, member, planned);
        return (host) => this.#finder.mayGo(plan, member, host, rulings);
      },
    };
    return search(members, { topology, amounts }, world, effort);
  }
}

/** What a change of plans leaves behind: nodes to settle, and nodes on which other amounts are kept back. */
interface Kept {
  readonly touched: Set<number>;
  readonly changed: Set<number>;
}
