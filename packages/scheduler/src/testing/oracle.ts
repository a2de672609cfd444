// SPDX-License-Identifier: Apache-2.0
/**
 * The rules of model.ts a second time, slow and plain, for judging the engine on small clusters. Shares nothing with it but
 * the types. `complaints` is what the rules say of one exact placement; everything else tries all placements and asks it.
 *
 * Choices that leave the same behind (another CPU of an equal core, another device of the same class and node) are tried once.
 * Normal memory of a VM without guest NUMA is split over nodes in steps of MEMORY_STEP_MIB: clusters made for the oracle have
 * memory in multiples of it.
 */
import type { VmId } from '@busbar/core/ids';
import { DOMAIN_KEYS, type Host, type PlacedVm, type Placement, type PlacementPolicy, type Vm } from '../model.ts';
import { Machine } from './oracle-machine.ts';

export { MEMORY_STEP_MIB } from './oracle-parts.ts';

/** A cluster with VMs on it, as the oracle sees it. */
export class World {
  readonly policy: PlacementPolicy;
  readonly machines: readonly Machine[];
  readonly vms = new Map<VmId, PlacedVm>();

  constructor(hosts: readonly Host[], policy: PlacementPolicy, placed: readonly PlacedVm[] = []) {
    this.policy = policy;
    this.machines = hosts.map((host) => new Machine(host, policy));
    for (const each of placed) this.put(each);
  }

  put(placed: PlacedVm): void {
    this.vms.set(placed.vm.id, placed);
    this.machine(placed.placement.host)?.put(placed);
  }

  drop(id: VmId): void {
    const placed = this.vms.get(id);
    if (placed === undefined) return;
    this.vms.delete(id);
    this.machine(placed.placement.host)?.drop(placed);
  }

  machine(id: string): Machine | undefined {
    return this.machines.find(({ host }) => host.id === id);
  }

  /** Every placement that the rules allow, one of each kind. */
  *placements(vm: Vm): Generator<Placement> {
    for (const machine of this.machines) {
      if (this.hostComplaints(vm, machine.host).length > 0) continue;
      yield* machine.placements(vm);
    }
  }

  /** What the rules have against the placement; empty when it is allowed. */
  complaints(vm: Vm, placement: Placement): readonly string[] {
    const machine = this.machine(placement.host);
    if (machine === undefined) return [`no host ${placement.host}`];
    return [...this.hostComplaints(vm, machine.host), ...machine.complaints(vm, placement)];
  }

  /** State, labels, networks and groups. */
  hostComplaints(vm: Vm, host: Host): readonly string[] {
    const found: string[] = [];
    if (host.notSchedulable !== '') found.push('state');
    if (vm.pinnedHost !== '' && vm.pinnedHost !== host.id) found.push('pinned-host');
    for (const [label, value] of Object.entries(vm.hostSelector)) {
      if (host.labels[label] !== value) found.push('host-selector');
    }
    if (vm.networks.some(({ id }) => !host.networks.has(id))) found.push('network');
    for (const kind of ['together', 'apart', 'pair'] as const) {
      const others = [...this.vms.values()].filter((other) => other.vm.id !== vm.id && bound(vm, other.vm, kind));
      const theirs = others.map(({ placement }) => this.machine(placement.host)?.host).filter((h) => h !== undefined);
      if (kind === 'together') {
        if (theirs.length > 0 && theirs.every(({ id }) => id !== host.id)) found.push(kind);
      } else if (theirs.some((their) => their.id === host.id || (kind === 'pair' && failTogether(their, host)))) {
        found.push(kind);
      }
    }
    return found;
  }

  /** HA VMs on the lost hosts: whether all of them have a place at once on the others, nothing else moving. */
  survives(lost: ReadonlySet<string>): boolean {
    const gone = [...this.vms.values()].filter(({ placement }) => lost.has(placement.host));
    const members = gone.map(({ vm }) => vm).filter(({ ha }) => ha);
    for (const { vm } of gone) this.drop(vm.id);
    const failed = new Set<string>();
    const step = (index: number): boolean => {
      const vm = members[index];
      if (vm === undefined) return true;
      const state = `${index} ${this.machines.map((machine) => (lost.has(machine.host.id) ? '' : machine.key())).join('|')} ${members
        .slice(0, index)
        .filter(({ rules }) => rules.length > 0)
        .map(({ id }) => `${id}@${this.vms.get(id)?.placement.host}`)
        .join()}`;
      if (failed.has(state)) return false;
      for (const placement of this.placements(vm)) {
        if (lost.has(placement.host)) continue;
        this.put({ vm, placement });
        const all = step(index + 1);
        this.drop(vm.id);
        if (all) return true;
      }
      failed.add(state);
      return false;
    };
    const verdict = step(0);
    for (const placed of gone) this.put(placed);
    return verdict;
  }

  /** What the policy says must be survived, by its hosts. */
  losses(): readonly ReadonlySet<string>[] {
    if (this.policy.survive === 'off') return [];
    const hosts = this.machines.map(({ host }) => host);
    const sets = hosts.map(({ id }) => [id as string]);
    if (this.policy.survive === 'any-one-failure-domain') {
      for (const key of DOMAIN_KEYS) {
        for (const word of new Set(hosts.map(({ domains }) => domains[key]))) {
          if (word !== '') sets.push(hosts.filter(({ domains }) => domains[key] === word).map(({ id }) => id));
        }
      }
    }
    const distinct = new Map(sets.map((set) => [set.toSorted().join(' '), new Set(set)]));
    return [...distinct.values()].filter((set) => set.size < hosts.length);
  }

  survivesAll(): boolean {
    return this.losses().every((lost) => this.survives(lost));
  }
}

/** A rule binds two members of its group when either of them holds it hard. */
function bound(a: Vm, b: Vm, kind: string): boolean {
  return a.rules.some(
    (rule) =>
      rule.kind === kind &&
      b.rules.some((other) => other.kind === kind && other.group === rule.group && !(rule.soft && other.soft)),
  );
}

function failTogether(a: Host, b: Host): boolean {
  return (['powerFeed', 'ringSegment'] as const).some(
    (key) => a.domains[key] !== '' && a.domains[key] === b.domains[key],
  );
}
