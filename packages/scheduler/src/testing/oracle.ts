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
import {
  type Device,
  DOMAIN_KEYS,
  type GuestCell,
  type Host,
  type NumaNode,
  type PlacedCell,
  type PlacedDevice,
  type PlacedVm,
  type Placement,
  type PlacementPolicy,
  type Vm,
} from '../model.ts';

export const MEMORY_STEP_MIB = 1024;

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

interface Cpu {
  readonly id: number;
  /** Threads of its core that are online, itself included. */
  readonly core: readonly number[];
  readonly isolated: boolean;
  readonly reserved: boolean;
}

/** One host: what it has and who holds it. */
class Machine {
  readonly host: Host;
  readonly #policy: PlacementPolicy;
  readonly #cpus = new Map<number, Cpu>();
  readonly #memoryMib = new Map<number, number>();
  readonly #placed = new Map<VmId, PlacedVm>();

  constructor(host: Host, policy: PlacementPolicy) {
    this.host = host;
    this.#policy = policy;
    for (const node of host.numaNodes) {
      for (const id of node.cpus) {
        const named = node.smtSiblings.find((set) => set.includes(id)) ?? [id];
        this.#cpus.set(id, {
          id,
          core: named.filter((cpu) => node.cpus.includes(cpu)),
          isolated: host.isolatedCpus.includes(id),
          reserved: host.reservedCpus.includes(id),
        });
      }
    }
    const normal = host.numaNodes.map(
      ({ memoryMib, hugepages }) => memoryMib - hugepages.reduce((sum, pool) => sum + pool.sizeMib * pool.pages, 0),
    );
    const all = normal.reduce((sum, mib) => sum + Math.max(0, mib), 0);
    const kept = Math.min(all, host.reservedMemoryMib ?? policy.hostReservedMemoryMib);
    // Hosts made for the oracle keep memory back only where there is one node, or in equal parts.
    host.numaNodes.forEach(({ id }, i) => {
      this.#memoryMib.set(
        id,
        Math.max(0, normal[i] ?? 0) - (all === 0 ? 0 : (kept * Math.max(0, normal[i] ?? 0)) / all),
      );
    });
  }

  put(placed: PlacedVm): void {
    this.#placed.set(placed.vm.id, placed);
  }

  drop(placed: PlacedVm): void {
    this.#placed.delete(placed.vm.id);
  }

  /** What is free, so that equal states have equal keys. */
  key(): string {
    return this.host.numaNodes
      .map((node) => {
        const cores = [...new Set(node.cpus.map((cpu) => this.#coreKey(cpu)))]
          .map((key) => key.split('@')[1] ?? '')
          .toSorted();
        const devices = this.host.devices
          .filter((device) => this.#freeDevice(device))
          .map((device) => `${device.class}:${device.numaNode}`)
          .toSorted();
        return [
          this.memoryFree(node.id),
          this.pagesFree(node.id, 2),
          this.pagesFree(node.id, 1024),
          this.#sharedVcpus(node.id),
          cores.join(),
          devices.join(),
        ].join(' ');
      })
      .join('/');
  }

  memoryFree(node: number): number {
    let free = this.#memoryMib.get(node) ?? 0;
    for (const { vm, placement } of this.#placed.values()) {
      placement.cells.forEach((cell, index) => {
        if (cell.numaNode !== node) return;
        if (vm.hugepageMib === 0) free -= cell.memoryMib;
        if (index === 0) free -= this.#policy.vmOverheadMib;
      });
    }
    return free;
  }

  pagesFree(node: number, sizeMib: number): number {
    const pools = this.host.numaNodes.find(({ id }) => id === node)?.hugepages ?? [];
    let free = pools.reduce((sum, pool) => sum + (pool.sizeMib === sizeMib ? pool.pages : 0), 0);
    for (const { vm, placement } of this.#placed.values()) {
      if (vm.hugepageMib !== sizeMib) continue;
      for (const cell of placement.cells) if (cell.numaNode === node) free -= Math.ceil(cell.memoryMib / sizeMib);
    }
    return free;
  }

  /** CPUs that a VM could have for itself: nobody has them, nor their whole core, nor does the host. */
  freeCpus(node: number, isolated: boolean): readonly number[] {
    const cpus = this.host.numaNodes.find(({ id }) => id === node)?.cpus ?? [];
    return cpus.filter((id) => this.#isFree(id) && this.#cpus.get(id)?.isolated === isolated);
  }

  /** vCPUs of shared VMs that the node still takes. */
  sharedFree(node: number): number {
    return this.freeCpus(node, false).length * this.#policy.vcpuOvercommit - this.#sharedVcpus(node);
  }

  devicesFree(name: string): readonly Device[] {
    return this.host.devices.filter((device) => device.class === name && this.#freeDevice(device));
  }

  complaints(vm: Vm, placement: Placement): readonly string[] {
    const found: string[] = [];
    const { cells, emulatorCpus, ioThreadCpus, devices } = placement;
    const nodes = this.host.numaNodes.map(({ id }) => id);
    const sum = (of: (cell: PlacedCell) => number) => cells.reduce((all, cell) => all + of(cell), 0);
    if (cells.length === 0) found.push('no cells');
    if (sum(({ vcpus }) => vcpus) !== vm.vcpus) found.push('vCPUs do not add up');
    if (sum(({ memoryMib }) => memoryMib) < vm.memoryMib) found.push('memory does not add up');
    if (new Set(cells.map(({ numaNode }) => numaNode)).size < cells.length) found.push('two cells on a node');
    if (cells.some(({ numaNode }) => !nodes.includes(numaNode))) found.push('no such NUMA node');
    found.push(...this.#cellComplaints(vm, cells));
    // CPUs.
    const own = cells.flatMap(({ cpus }) => cpus);
    const extra = [...emulatorCpus, ...ioThreadCpus];
    const wantedExtra = vm.cpuPolicy === 'realtime' ? 1 + vm.ioThreads : 0;
    if (extra.length !== wantedExtra || emulatorCpus.length !== Math.min(1, wantedExtra)) found.push('emulator CPUs');
    if (new Set([...own, ...extra]).size < own.length + extra.length) found.push('a CPU twice');
    for (const cpu of [...own, ...extra]) if (!this.#isFree(cpu)) found.push(`CPU ${cpu} is not free`);
    for (const cell of cells) {
      if (cell.cpus.length !== (vm.cpuPolicy === 'shared' ? 0 : cell.vcpus)) found.push('a CPU for each vCPU');
      for (const cpu of cell.cpus) {
        if (!this.freeCpus(cell.numaNode, vm.cpuPolicy === 'realtime').includes(cpu))
          found.push(`CPU ${cpu}: wrong pool`);
      }
      found.push(...this.#smtComplaints(vm, cell.cpus, own, extra));
    }
    const home = cells[0]?.numaNode ?? -1;
    const onGeneral = this.#hasGeneral(home);
    for (const cpu of extra) {
      if (!this.freeCpus(home, !onGeneral).includes(cpu)) found.push(`emulator on CPU ${cpu}`);
    }
    // Devices.
    const given = new Set(devices.map(({ address }) => address));
    if (given.size < devices.length) found.push('a device twice');
    for (const { address, class: name } of devices) {
      if (!this.devicesFree(name).some((device) => device.address === address)) found.push(`device ${address}`);
    }
    if (!devicesServe(vm, cells, devices, nodes)) found.push('devices');
    // Amounts: what is left when it is there.
    if (found.length > 0) return found;
    this.put({ vm, placement });
    for (const node of nodes) {
      if (this.memoryFree(node) < 0) found.push(`memory of node ${node}`);
      for (const size of [2, 1024]) if (this.pagesFree(node, size) < 0) found.push(`pages of node ${node}`);
      if (this.sharedFree(node) < 0) found.push(`shared CPUs of node ${node}`);
    }
    this.#placed.delete(vm.id);
    return found;
  }

  /** Every placement on this host that `complaints` has nothing against, one of each kind. Rules of groups are not asked. */
  *placements(vm: Vm): Generator<Placement> {
    const seen = new Set<string>();
    for (const cells of this.#cellings(vm)) {
      for (const cpus of product(cells.map((cell) => this.#cpuChoices(vm, cell)))) {
        const placed = cells.map((cell, i): PlacedCell => ({ ...cell, cpus: cpus[i] ?? [] }));
        for (const extra of this.#extraChoices(vm, placed)) {
          for (const devices of this.#deviceChoices(vm)) {
            const placement: Placement = {
              host: this.host.id,
              cells: placed,
              emulatorCpus: extra.slice(0, 1),
              ioThreadCpus: extra.slice(1),
              devices,
            };
            if (this.complaints(vm, placement).length > 0) continue;
            this.put({ vm, placement });
            const key = this.key();
            this.#placed.delete(vm.id);
            if (seen.has(key)) continue;
            seen.add(key);
            yield placement;
          }
        }
      }
    }
  }

  #cellComplaints(vm: Vm, cells: readonly PlacedCell[]): readonly string[] {
    if (cells.length > 1 && vm.oneNodeRequired && vm.guestNuma !== 'explicit') return ['more than one node'];
    if (cells.some(({ vcpus, memoryMib }) => vcpus + memoryMib === 0)) return ['an empty cell'];
    const equal = (a: readonly GuestCell[]) =>
      a.length === cells.length &&
      a.every(({ vcpus, memoryMib }, i) => cells[i]?.vcpus === vcpus && cells[i]?.memoryMib === memoryMib);
    if (vm.guestNuma === 'explicit' && vm.cells.length > 1) return equal(vm.cells) ? [] : ['not the cells asked for'];
    if (vm.guestNuma === 'automatic' && cells.length > 1) {
      return equal(equalParts(vm, cells.length)) ? [] : ['cells are not equal'];
    }
    return [];
  }

  #smtComplaints(vm: Vm, cpus: readonly number[], own: readonly number[], extra: readonly number[]): readonly string[] {
    if (vm.cpuPolicy === 'shared' || vm.smt === 'prefer') return [];
    const cores = [...new Set(cpus.map((cpu) => this.#cpus.get(cpu)?.core ?? []))].map((core) => core.join());
    const distinct = [...new Set(cores)];
    for (const cpu of cpus) {
      const core = this.#cpus.get(cpu)?.core ?? [];
      const pool = this.#cpus.get(cpu)?.isolated;
      // Whole: the host or somebody else has none of its threads, and all are of one pool.
      if (core.some((thread) => !this.#isFree(thread) || this.#cpus.get(thread)?.isolated !== pool))
        return ['half a core'];
      if (core.some((thread) => extra.includes(thread))) return ['emulator on a vCPU core'];
      if (vm.smt === 'isolate' && core.some((thread) => thread !== cpu && own.includes(thread)))
        return ['a core twice'];
      if (vm.smt === 'require' && core.length < 2) return ['core without SMT'];
    }
    if (vm.smt === 'require' && distinct.length > Math.ceil(cpus.length / 2)) return ['cores not filled'];
    return [];
  }

  // ---------------------------------------------------------------------------------------------------------- choices

  /** Cells with their nodes, CPUs not chosen. */
  *#cellings(vm: Vm): Generator<readonly Omit<PlacedCell, 'cpus'>[]> {
    const nodes = this.host.numaNodes.map(({ id }) => id);
    const explicit = vm.guestNuma === 'explicit' && vm.cells.length > 1;
    if (!explicit) for (const numaNode of nodes) yield [{ numaNode, vcpus: vm.vcpus, memoryMib: vm.memoryMib }];
    const onNodes = function* (cells: readonly GuestCell[]): Generator<readonly Omit<PlacedCell, 'cpus'>[]> {
      for (const chosen of arrangements(nodes, cells.length)) {
        yield cells.map((cell, i) => ({ numaNode: chosen[i] ?? -1, ...cell }));
      }
    };
    if (explicit) yield* onNodes(vm.cells);
    else if (vm.oneNodeRequired) return;
    else if (vm.guestNuma === 'automatic') {
      const pages = Math.ceil(vm.memoryMib / (vm.hugepageMib || 1));
      for (let count = 2; count <= Math.min(nodes.length, vm.vcpus, pages); count++)
        yield* onNodes(equalParts(vm, count));
    } else {
      for (const vcpus of partitions(vm.vcpus, nodes.length)) {
        for (const units of partitions(unitsOf(vm), nodes.length)) {
          const cells = nodes
            .map((numaNode, i) => ({ numaNode, vcpus: vcpus[i] ?? 0, memoryMib: (units[i] ?? 0) * unitMib(vm) }))
            .filter((cell) => cell.vcpus + cell.memoryMib > 0);
          // Any of them may be the first, which has the emulator.
          if (cells.length > 1) for (const first of cells) yield [first, ...cells.filter((cell) => cell !== first)];
        }
      }
    }
  }

  #cpuChoices(vm: Vm, cell: Omit<PlacedCell, 'cpus'>): readonly (readonly number[])[] {
    if (vm.cpuPolicy === 'shared') return [[]];
    const free = this.freeCpus(cell.numaNode, vm.cpuPolicy === 'realtime');
    return this.#distinct([...combinations(free, cell.vcpus)]);
  }

  #extraChoices(vm: Vm, cells: readonly PlacedCell[]): readonly (readonly number[])[] {
    if (vm.cpuPolicy !== 'realtime') return [[]];
    const home = cells[0]?.numaNode ?? -1;
    const taken = new Set(cells.flatMap(({ cpus }) => cpus));
    const free = this.freeCpus(home, !this.#hasGeneral(home)).filter((cpu) => !taken.has(cpu));
    const choices = [...combinations(free, 1 + vm.ioThreads)];
    // With vCPUs on the same kind of CPU, cores that look alike now may not be.
    return this.#hasGeneral(home) ? this.#distinct(choices) : choices;
  }

  *#deviceChoices(vm: Vm): Generator<readonly PlacedDevice[]> {
    const wanted = new Map<string, number>();
    for (const { class: name, count } of vm.devices) wanted.set(name, (wanted.get(name) ?? 0) + count);
    const choices = [...wanted].map(([name, count]) => {
      const free = this.devicesFree(name).filter(
        (device, i, all) => all.findIndex(({ address }) => address === device.address) === i,
      );
      const byKind = new Map<string, readonly Device[]>();
      for (const choice of combinations(free, count)) {
        byKind.set(
          choice
            .map(({ numaNode }) => `${numaNode}`)
            .toSorted()
            .join(),
          choice,
        );
      }
      return [...byKind.values()];
    });
    for (const parts of product(choices)) yield parts.flat();
  }

  /** One of each kind of choice: as many threads of cores in equal states. */
  #distinct(choices: readonly (readonly number[])[]): readonly (readonly number[])[] {
    const kinds = new Map<string, readonly number[]>();
    for (const choice of choices) {
      const threads = Map.groupBy(choice, (cpu) => this.#coreKey(cpu));
      const kind = [...threads].map(([core, cpus]) => `${core.split('@')[1]}x${cpus.length}`).toSorted();
      if (!kinds.has(kind.join())) kinds.set(kind.join(), choice);
    }
    return [...kinds.values()];
  }

  // ------------------------------------------------------------------------------------------------------------- state

  /** Which core, and in which state its threads are. */
  #coreKey(cpu: number): string {
    const core = this.#cpus.get(cpu)?.core ?? [cpu];
    const states = core.map((thread) => {
      const isolated = this.#cpus.get(thread)?.isolated === true;
      return `${this.#isFree(thread) ? 'f' : 'x'}${isolated ? 'i' : 'g'}`;
    });
    return `${core.join('+')}@${states.toSorted().join('')}`;
  }

  #isFree(id: number): boolean {
    const cpu = this.#cpus.get(id);
    if (cpu === undefined || cpu.reserved) return false;
    for (const { vm, placement } of this.#placed.values()) {
      if (placement.emulatorCpus.includes(id) || placement.ioThreadCpus.includes(id)) return false;
      const whole = vm.smt !== 'prefer';
      for (const { cpus } of placement.cells) {
        if (cpus.includes(id) || (whole && cpus.some((held) => cpu.core.includes(held)))) return false;
      }
    }
    return true;
  }

  #hasGeneral(node: number): boolean {
    const cpus = this.host.numaNodes.find(({ id }) => id === node)?.cpus ?? [];
    return cpus.some((id) => this.#cpus.get(id)?.reserved === false && this.#cpus.get(id)?.isolated === false);
  }

  #sharedVcpus(node: number): number {
    let sum = 0;
    for (const { vm, placement } of this.#placed.values()) {
      if (vm.cpuPolicy !== 'shared') continue;
      for (const cell of placement.cells) if (cell.numaNode === node) sum += cell.vcpus;
    }
    return sum;
  }

  #freeDevice({ address }: Device): boolean {
    return [...this.#placed.values()].every(({ placement }) =>
      placement.devices.every((device) => device.address !== address),
    );
  }
}

/** Each required request from one of the VM's nodes, the others from what is left. */
function devicesServe(
  vm: Vm,
  cells: readonly PlacedCell[],
  devices: readonly PlacedDevice[],
  nodes: readonly NumaNode['id'][],
): boolean {
  const own = cells.map(({ numaNode }) => numaNode);
  const nodeOf = ({ numaNode }: PlacedDevice) => (numaNode === null && nodes.length === 1 ? nodes[0] : numaNode);
  const serve = (requests: readonly Vm['devices'][number][], left: readonly PlacedDevice[]): boolean => {
    const [request, ...others] = requests;
    if (request === undefined) return left.length === 0;
    const pools =
      request.numa === 'required' ? own.map((node) => left.filter((device) => nodeOf(device) === node)) : [left];
    return pools.some((pool) => {
      const fit = pool.filter((device) => device.class === request.class).slice(0, request.count);
      return (
        fit.length === request.count &&
        serve(
          others,
          left.filter((device) => !fit.includes(device)),
        )
      );
    });
  };
  return serve(
    vm.devices.toSorted((a, b) => Number(b.numa === 'required') - Number(a.numa === 'required')),
    devices,
  );
}

const unitMib = (vm: Vm) => (vm.hugepageMib === 1024 ? 1024 : MEMORY_STEP_MIB);
const unitsOf = (vm: Vm) => Math.ceil(vm.memoryMib / unitMib(vm));

/** As equal as whole vCPUs and pages (or MiB) allow, the larger first. */
function equalParts(vm: Vm, count: number): readonly GuestCell[] {
  const unit = vm.hugepageMib === 0 ? 1 : vm.hugepageMib;
  const cells = Array.from({ length: count }, () => ({ vcpus: 0, memoryMib: 0 }));
  for (let i = 0; i < vm.vcpus; i++) (cells[i % count] as { vcpus: number }).vcpus++;
  for (let i = 0; i < Math.ceil(vm.memoryMib / unit); i++)
    (cells[i % count] as { memoryMib: number }).memoryMib += unit;
  return cells;
}

export function* combinations<T>(items: readonly T[], count: number, from = 0): Generator<readonly T[]> {
  if (count === 0) yield [];
  else {
    for (let i = from; i <= items.length - count; i++) {
      for (const rest of combinations(items, count - 1, i + 1)) yield [items[i] as T, ...rest];
    }
  }
}

function* arrangements<T>(items: readonly T[], count: number): Generator<readonly T[]> {
  if (count === 0) yield [];
  else if (count <= items.length) {
    for (const item of items) {
      for (const rest of arrangements(
        items.filter((other) => other !== item),
        count - 1,
      ))
        yield [item, ...rest];
    }
  }
}

/** All ways to write `sum` as so many parts, 0 included. */
function* partitions(sum: number, parts: number): Generator<readonly number[]> {
  if (parts === 0) return;
  if (parts === 1) yield [sum];
  else {
    for (let first = 0; first <= sum; first++)
      for (const rest of partitions(sum - first, parts - 1)) yield [first, ...rest];
  }
}

function* product<T>(choices: readonly (readonly T[])[]): Generator<readonly T[]> {
  const [first, ...others] = choices;
  if (first === undefined) yield [];
  else for (const item of first) for (const rest of product(others)) yield [item, ...rest];
}
