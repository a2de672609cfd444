// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import type {
  Device,
  GuestCell,
  Host,
  PlacedCell,
  PlacedDevice,
  PlacedVm,
  Placement,
  PlacementPolicy,
  Vm,
} from '../model.ts';
import { arrangements, combinations, partitions, product } from './combinations.ts';
import { devicesServe, equalParts, unitMib, unitsOf } from './oracle-parts.ts';

interface Cpu {
  readonly id: number;
  /** Threads of its core that are online, itself included. */
  readonly core: readonly number[];
  readonly isolated: boolean;
  readonly reserved: boolean;
}

/** One host: what it has and who holds it. */
export class Machine {
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
