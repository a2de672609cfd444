// SPDX-License-Identifier: Apache-2.0
import type { SeatedDevices } from '../fit/seating.ts';
import type { PlacedDevice, Placement, PlacementPolicy, SmtPolicy, Vm } from '../model.ts';
import {
  CORES,
  DEVICES,
  GENERAL,
  ISOLATED,
  MEMORY,
  PAGES_1G,
  PAGES_2M,
  SHARED_VCPU,
  SMT_CORES,
  THREADS,
  threadShares,
  WIDE,
} from './dimensions.ts';
import type { Topology } from './topology.ts';

export type Pool = typeof GENERAL | typeof ISOLATED;

/**
 * Who has what, and what is free, exactly: each CPU, each device, pages and memory of each NUMA node. What a placement names
 * and the host does not have (its hardware changed) is told and not counted. What is given twice is told; free amounts then
 * go below zero, so that nothing more is given from there.
 */
export class Ledger {
  readonly topology: Topology;
  /** free[node * stride + dimension]. */
  readonly free: Int32Array;
  /** VMs that have a thread: [2 * core + thread]. More than one only when something is wrong. */
  readonly #holders: Uint8Array;
  /** VMs that have a core whole, with the threads that they do not use kept empty. */
  readonly #isolators: Uint8Array;
  /** VMs that have a device. */
  readonly #deviceHolders = new Map<string, number>();
  readonly #shares: number;
  readonly #overheadMib: number;
  /** Of each host: where the holders of a CPU are counted. */
  readonly #threadOfCpu: readonly ReadonlyMap<number, number>[];

  constructor(topology: Topology, policy: PlacementPolicy) {
    this.topology = topology;
    this.#shares = threadShares(policy.vcpuOvercommit);
    this.#overheadMib = policy.vmOverheadMib;
    const { stride, nodeIds, wholeCore, deviceClasses } = topology;
    this.free = new Int32Array(nodeIds.length * stride);
    this.#holders = new Uint8Array(2 * wholeCore.length);
    this.#isolators = new Uint8Array(wholeCore.length);
    this.#threadOfCpu = topology.hosts.map((_, h) => threadsOf(topology, h));
    for (let node = 0; node < nodeIds.length; node++) {
      const at = node * stride;
      this.free[at + MEMORY] = topology.memoryMib[node] ?? 0;
      this.free[at + PAGES_2M] = topology.pages2m[node] ?? 0;
      this.free[at + PAGES_1G] = topology.pages1g[node] ?? 0;
      for (let index = 0; index < deviceClasses.length; index++) {
        this.free[at + DEVICES + index] = topology.devices[node * deviceClasses.length + index]?.length ?? 0;
      }
    }
    topology.looseDevices.forEach((addresses, i) => {
      const [host, index] = [Math.floor(i / deviceClasses.length), i % deviceClasses.length];
      this.free[(topology.nodeOfHost[host] ?? 0) * stride + DEVICES + deviceClasses.length + index] = addresses.length;
    });
    for (let core = 0; core < wholeCore.length; core++) this.#count(core, 1);
  }

  /** Gives the VM what the placement says. Returns what is wrong with that, for people; empty when it was all there and free. */
  take(vm: Vm, placement: Placement): readonly string[] {
    const wrong: string[] = [];
    this.#apply(vm, placement, 1, wrong);
    return wrong;
  }

  release(vm: Vm, placement: Placement): void {
    this.#apply(vm, placement, -1, []);
  }

  /** The number in the cluster of a host's NUMA node; -1 when it has none such. */
  nodeOf(host: number, nodeId: number): number {
    const { nodeOfHost, nodeIds } = this.topology;
    const end = nodeOfHost[host + 1] ?? 0;
    for (let node = nodeOfHost[host] ?? 0; node < end; node++) if (nodeIds[node] === nodeId) return node;
    return -1;
  }

  /**
   * Free CPUs of a node's pool, for one VM, by the rules of its SMT policy; fewer than `count` when there are not so many.
   * Half-used cores go first where any thread will do: whole cores are what is rare; those beside a thread of the other pool go
   * last. Of whole ones, those of two threads serve "prefer" and "require" and those of one "isolate", so that each keeps what
   * the other cannot use; with `spareSingles` those of one go last, for plans that need them.
   */
  pick(
    node: number,
    pool: Pool,
    count: number,
    smt: SmtPolicy,
    besides: readonly number[] = [],
    spareSingles = false,
  ): number[] {
    const { coreOfNode, isolatedCoreOfNode } = this.topology;
    const middle = isolatedCoreOfNode[node] ?? 0;
    const first = pool === GENERAL ? (coreOfNode[node] ?? 0) : middle;
    const end = pool === GENERAL ? middle : (coreOfNode[node + 1] ?? 0);
    const chosen: number[] = [];
    const pass = (wanted: (core: number, free: number) => boolean, threads: number): void => {
      for (let core = first; core < end && chosen.length < count; core++) {
        const free = this.#freeThreads(core);
        if (free === 0 || !wanted(core, free)) continue;
        for (let thread = 0, given = 0; thread < 2 && given < threads && chosen.length < count; thread++) {
          const cpu = this.#freeCpu(core, thread);
          if (cpu < 0 || chosen.includes(cpu) || besides.includes(cpu)) continue;
          chosen.push(cpu);
          given++;
        }
      }
    };
    const untouched = (core: number) =>
      besides.length === 0 || !(besides.includes(this.#freeCpu(core, 0)) || besides.includes(this.#freeCpu(core, 1)));
    const whole = (core: number) => this.#isWhole(core) && untouched(core);
    const mixed = (core: number) => this.topology.mixedCore[core] === 1;
    const single = (core: number) => this.topology.cpusOfCore[2 * core + 1] === -1;
    if (smt === 'isolate') {
      if (spareSingles) pass((core) => whole(core) && !single(core), 1);
      pass((core) => whole(core) && single(core), 1);
      pass((core) => whole(core) && !single(core), 1);
    } else if (smt === 'require') {
      pass((core) => whole(core) && !single(core), 2);
    } else {
      pass((core) => !whole(core) && !mixed(core), 2);
      // A whole core for each pair, one of a single thread for the odd one if there is any.
      const odd = (count - chosen.length) % 2 === 1;
      const pairsUpTo = odd ? count - 1 : count;
      for (let core = first; core < end && chosen.length < pairsUpTo; core++) {
        if (!whole(core) || single(core)) continue;
        chosen.push(this.#freeCpu(core, 0), this.#freeCpu(core, 1));
      }
      if (spareSingles) pass((core) => whole(core) && !single(core), 2);
      pass((core) => whole(core) && single(core), 1);
      pass((core) => !mixed(core), 2);
      pass(() => true, 2);
    }
    return chosen;
  }

  /** CPUs that nobody else may have when these are given: of whole cores, all of them. */
  blockedBy(node: number, cpus: readonly number[], smt: SmtPolicy): readonly number[] {
    if (smt === 'prefer') return cpus;
    const { hostOfNode, cpusOfCore } = this.topology;
    return cpus.flatMap((cpu) => {
      const slot = this.#threadOfCpu[hostOfNode[node] ?? 0]?.get(cpu);
      return slot === undefined ? [cpu] : [...cpusOfCore.subarray(slot & ~1, (slot & ~1) + 2)];
    });
  }

  /** Addresses for seated devices: the lowest free ones. */
  pickDevices(host: number, seated: readonly SeatedDevices[]): readonly PlacedDevice[] {
    const { devices, looseDevices, deviceClasses, hosts } = this.topology;
    const chosen: PlacedDevice[] = [];
    for (const { classIndex, count, node, loose } of seated) {
      const all = loose
        ? looseDevices[host * deviceClasses.length + classIndex]
        : devices[node * deviceClasses.length + classIndex];
      const free = (all ?? []).filter(
        (address) =>
          !this.#deviceHolders.has(`${host} ${address}`) && chosen.every((device) => device.address !== address),
      );
      for (const address of free.slice(0, count)) {
        const numaNode = hosts[host]?.devices.find((device) => device.address === address)?.numaNode ?? null;
        chosen.push({ class: deviceClasses[classIndex] ?? '', address, numaNode });
      }
    }
    return chosen;
  }

  /** Free CPUs of a node's pool, ascending: for explanations and maps. */
  freeCpus(node: number, pool: Pool): readonly number[] {
    const { coreOfNode, isolatedCoreOfNode } = this.topology;
    const middle = isolatedCoreOfNode[node] ?? 0;
    const first = pool === GENERAL ? (coreOfNode[node] ?? 0) : middle;
    const end = pool === GENERAL ? middle : (coreOfNode[node + 1] ?? 0);
    const cpus: number[] = [];
    for (let core = first; core < end; core++) {
      for (const thread of [0, 1]) {
        const cpu = this.#freeCpu(core, thread);
        if (cpu >= 0) cpus.push(cpu);
      }
    }
    return cpus.toSorted((a, b) => a - b);
  }

  #apply(vm: Vm, placement: Placement, sign: 1 | -1, wrong: string[]): void {
    const { topology, free } = this;
    const host = topology.hostIndex.get(placement.host) ?? -1;
    if (host < 0) {
      wrong.push(`there is no host ${placement.host}`);
      return;
    }
    const take = (node: number, dimension: number, amount: number, what: string): void => {
      if (amount === 0) return;
      const at = node * topology.stride + dimension;
      const left = (free[at] ?? 0) - sign * amount;
      free[at] = left;
      if (sign > 0 && left < 0) wrong.push(`NUMA node ${topology.nodeIds[node]} is short of ${what}`);
    };
    const wholeCores = vm.smt !== 'prefer' && vm.cpuPolicy !== 'shared';
    for (let index = 0; index < placement.cells.length; index++) {
      const cell = placement.cells[index];
      if (cell === undefined) continue;
      const node = this.nodeOf(host, cell.numaNode);
      if (node < 0) {
        wrong.push(`there is no NUMA node ${cell.numaNode}`);
        continue;
      }
      if (vm.hugepageMib === 0) take(node, MEMORY, cell.memoryMib, 'memory');
      else {
        const pages = Math.ceil(cell.memoryMib / vm.hugepageMib);
        take(node, vm.hugepageMib === 2 ? PAGES_2M : PAGES_1G, pages, 'hugepages');
      }
      if (index === 0) take(node, MEMORY, this.#overheadMib, 'memory');
      if (vm.cpuPolicy === 'shared') {
        take(node, GENERAL + THREADS, cell.vcpus * SHARED_VCPU, 'shared CPUs');
        take(node, GENERAL + WIDE, cell.vcpus * SHARED_VCPU, 'shared CPUs');
      }
      for (const cpu of cell.cpus) this.#takeCpu(host, cpu, sign, wrong, node);
      if (wholeCores) this.#isolate(host, cell.cpus, sign, wrong);
    }
    for (const cpu of placement.emulatorCpus) this.#takeCpu(host, cpu, sign, wrong);
    for (const cpu of placement.ioThreadCpus) this.#takeCpu(host, cpu, sign, wrong);
    for (const device of placement.devices) {
      const key = `${host} ${device.address}`;
      const classIndex = topology.deviceClasses.indexOf(device.class);
      const holders = this.#deviceHolders.get(key) ?? 0;
      if (sign > 0 && holders > 0) wrong.push(`device ${device.address} is taken already`);
      if (holders + sign > 0) this.#deviceHolders.set(key, holders + sign);
      else this.#deviceHolders.delete(key);
      const place = this.#placeOf(host, classIndex, device.address);
      if (place === null) wrong.push(`there is no device ${device.address} of class ${device.class}`);
      else take(place.node, place.dimension, 1, `devices of class ${device.class}`);
    }
  }

  /** Where a device is counted. */
  #placeOf(host: number, classIndex: number, address: string): { node: number; dimension: number } | null {
    const { nodeOfHost, devices, looseDevices, deviceClasses } = this.topology;
    if (classIndex < 0) return null;
    const first = nodeOfHost[host] ?? 0;
    for (let node = first; node < (nodeOfHost[host + 1] ?? 0); node++) {
      if (devices[node * deviceClasses.length + classIndex]?.includes(address)) {
        return { node, dimension: DEVICES + classIndex };
      }
    }
    return looseDevices[host * deviceClasses.length + classIndex]?.includes(address)
      ? { node: first, dimension: DEVICES + deviceClasses.length + classIndex }
      : null;
  }

  /** `node`: where the CPU should be, when that matters. */
  #takeCpu(host: number, cpu: number, sign: 1 | -1, wrong: string[], node = -1): void {
    const slot = this.#threadOfCpu[host]?.get(cpu);
    if (slot === undefined) {
      wrong.push(`CPU ${cpu} is not there, or reserved for the host`);
      return;
    }
    const core = slot >> 1;
    if (sign > 0 && this.#freeCpu(core, slot & 1) < 0) wrong.push(`CPU ${cpu} is taken already`);
    const { nodeOfCore, nodeIds } = this.topology;
    const at = nodeOfCore[core] ?? 0;
    if (node >= 0 && at !== node) wrong.push(`CPU ${cpu} is on NUMA node ${nodeIds[at]}, not ${nodeIds[node]}`);
    this.#count(core, -1);
    this.#holders[slot] = (this.#holders[slot] ?? 0) + sign;
    this.#count(core, 1);
  }

  /** Gives the VM that has these CPUs their cores whole, or takes them back. */
  #isolate(host: number, cpus: readonly number[], sign: 1 | -1, wrong: string[]): void {
    const slots = cpus.flatMap((cpu) => this.#threadOfCpu[host]?.get(cpu) ?? []);
    for (const core of new Set(slots.map((slot) => slot >> 1))) {
      const sibling = [2 * core, 2 * core + 1].find((slot) => !slots.includes(slot) && this.#holders[slot] !== 0);
      if (sign > 0 && sibling !== undefined) {
        wrong.push(`CPU ${this.topology.cpusOfCore[sibling]}, of a core that must be whole, is taken already`);
      }
      this.#count(core, -1);
      this.#isolators[core] = (this.#isolators[core] ?? 0) + sign;
      this.#count(core, 1);
    }
  }

  /** The CPU if it is free, else -1. */
  #freeCpu(core: number, thread: number): number {
    if (this.#holders[2 * core + thread] !== 0 || this.#isolators[core] !== 0) return -1;
    return this.topology.cpusOfCore[2 * core + thread] ?? -1;
  }

  #freeThreads(core: number): number {
    return (this.#freeCpu(core, 0) >= 0 ? 1 : 0) + (this.#freeCpu(core, 1) >= 0 ? 1 : 0);
  }

  #isWhole(core: number): boolean {
    const { wholeCore } = this.topology;
    return (
      wholeCore[core] === 1 &&
      this.#isolators[core] === 0 &&
      this.#holders[2 * core] === 0 &&
      this.#holders[2 * core + 1] === 0
    );
  }

  /** Adds what the core, as it is now, gives to its node; or takes it away. */
  #count(core: number, sign: 1 | -1): void {
    const { nodeOfCore, isolatedCoreOfNode, stride, cpusOfCore } = this.topology;
    const node = nodeOfCore[core] ?? 0;
    const isolated = core >= (isolatedCoreOfNode[node] ?? 0);
    const at = node * stride + (isolated ? ISOLATED : GENERAL);
    const thread = isolated ? 1 : this.#shares;
    const threads = this.#freeThreads(core);
    const whole = this.#isWhole(core);
    const single = whole && cpusOfCore[2 * core + 1] === -1;
    const { free } = this;
    const add = (dimension: number, amount: number) => {
      free[at + dimension] = (free[at + dimension] ?? 0) + sign * amount;
    };
    add(THREADS, threads * thread);
    add(WIDE, (threads + (single ? 1 : 0)) * thread);
    add(CORES, whole ? 1 : 0);
    add(SMT_CORES, whole && !single ? 1 : 0);
  }
}

function threadsOf(topology: Topology, host: number): ReadonlyMap<number, number> {
  const { nodeOfHost, coreOfNode, cpusOfCore } = topology;
  const threads = new Map<number, number>();
  const end = 2 * (coreOfNode[nodeOfHost[host + 1] ?? 0] ?? 0);
  for (let slot = 2 * (coreOfNode[nodeOfHost[host] ?? 0] ?? 0); slot < end; slot++) {
    const cpu = cpusOfCore[slot] ?? -1;
    if (cpu >= 0) threads.set(cpu, slot);
  }
  return threads;
}
