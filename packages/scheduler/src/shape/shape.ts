// SPDX-License-Identifier: Apache-2.0
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
} from '../capacity/dimensions.ts';
import type { GuestCell, Needs, PlacementPolicy } from '../model.ts';

/** What one cell of a VM takes of a NUMA node, in its dimensions; it differs by the kind of node. */
export interface CellDemand {
  readonly vcpus: number;
  readonly memoryMib: number;
  /** On nodes that have CPUs which are not isolated. */
  readonly general: Demand;
  /** On nodes whose CPUs are all isolated: emulator and I/O threads of a realtime VM must run on those. */
  readonly isolatedOnly: Demand;
}

/** Only what is not 0: pairs of dimension and amount. */
export interface Demand {
  readonly dimensions: Int32Array;
  readonly amounts: Int32Array;
}

/** VMs with equal needs are of one shape: what was found out for one of them holds for all. */
export interface Shape {
  readonly index: number;
  readonly needs: Needs;
  /** 1: state, labels, networks and device classes of the host are right. */
  readonly admits: Uint8Array;
  /** The whole VM on one node; null for explicit cells, more than one. */
  readonly whole: CellDemand | null;
  /** The cells of explicit guest NUMA; empty otherwise. */
  readonly cells: readonly CellDemand[];
  /** May be spread over nodes when no node takes it whole. */
  readonly maySplit: boolean;
  /** Devices that need not be on the VM's nodes, by class: [class, count]. */
  readonly looseDevices: readonly { readonly classIndex: number; readonly count: number; readonly near: boolean }[];
  /** Devices that must be on a node of the VM. */
  readonly boundDevices: readonly { readonly classIndex: number; readonly count: number }[];
  /** A class of devices that no host has. */
  readonly unknownDevice: string | null;
  /** CPUs of emulator and I/O threads. */
  readonly extraCpus: number;
}

/** Of a realtime VM: one for the emulator, one for each I/O thread. Other VMs' threads run on shared and reserved CPUs. */
export function extraCpus(needs: Needs): number {
  return needs.cpuPolicy === 'realtime' ? 1 + needs.ioThreads : 0;
}

/** Equal exactly for equal needs. */
export function shapeKey(needs: Needs): string {
  const { vcpus, memoryMib, cpuPolicy, smt, ioThreads, guestNuma, oneNodeRequired, hugepageMib } = needs;
  let key = `${vcpus} ${memoryMib} ${cpuPolicy} ${smt} ${ioThreads} ${guestNuma} ${oneNodeRequired} ${hugepageMib}`;
  for (const cell of needs.cells) key += ` ${cell.vcpus}/${cell.memoryMib}`;
  if (needs.devices.length > 0) {
    key += JSON.stringify(needs.devices.map((device) => [device.class, device.count, device.numa]).toSorted(compare));
  }
  const selector = Object.entries(needs.hostSelector);
  if (selector.length > 0) key += JSON.stringify(selector.toSorted(compare));
  if (needs.networks.length > 0) key += JSON.stringify(needs.networks.map(({ id }) => id).toSorted());
  return key;
}

const AMOUNT_MAX = 2 ** 31 - 1;

const compare = (a: readonly unknown[], b: readonly unknown[]) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);

export interface ShapeWorld {
  readonly policy: PlacementPolicy;
  readonly deviceClasses: readonly string[];
  readonly admits: (unknownDevice: string | null) => Uint8Array;
}

export function shapeOf(needs: Needs, index: number, { policy, deviceClasses, admits }: ShapeWorld): Shape {
  const classIndex = (name: string) => deviceClasses.indexOf(name);
  const known = needs.devices.filter((device) => device.count > 0 && classIndex(device.class) >= 0);
  const bound = known
    .filter(({ numa }) => numa === 'required')
    .map((device) => ({ classIndex: classIndex(device.class), count: device.count }));
  const explicit = needs.guestNuma === 'explicit' && needs.cells.length > 1;
  const demand = (cell: GuestCell, first: boolean, devices = bound): CellDemand =>
    cellDemand(needs, cell, { first, devices, policy });
  const unknownDevice = needs.devices.find((device) => device.count > 0 && classIndex(device.class) < 0)?.class ?? null;
  return {
    index,
    needs,
    admits: admits(unknownDevice),
    unknownDevice,
    whole: explicit ? null : demand(needs, true),
    cells: explicit ? needs.cells.map((cell, i) => demand(cell, i === 0, [])) : [],
    maySplit: !needs.oneNodeRequired && needs.guestNuma !== 'explicit',
    boundDevices: bound,
    looseDevices: known
      .filter(({ numa }) => numa !== 'required')
      .map((device) => ({
        classIndex: classIndex(device.class),
        count: device.count,
        near: device.numa === 'preferred',
      })),
    extraCpus: extraCpus(needs),
  };
}

/** `first`: the cell that also carries QEMU's own memory and the emulator's CPUs. */
export function cellDemand(
  needs: Needs,
  cell: GuestCell,
  options: {
    readonly first: boolean;
    readonly devices: readonly { readonly classIndex: number; readonly count: number }[];
    readonly policy: PlacementPolicy;
  },
): CellDemand {
  const { first, devices, policy } = options;
  const shares = threadShares(policy.vcpuOvercommit);
  const build = (hasGeneral: boolean): Demand => {
    const amounts = new Map<number, number>();
    const add = (dimension: number, amount: number) => {
      if (amount > 0) amounts.set(dimension, (amounts.get(dimension) ?? 0) + amount);
    };
    const { hugepageMib } = needs;
    if (hugepageMib === 0) add(MEMORY, cell.memoryMib);
    else add(hugepageMib === 2 ? PAGES_2M : PAGES_1G, Math.ceil(cell.memoryMib / hugepageMib));
    if (first) add(MEMORY, policy.vmOverheadMib);
    if (needs.cpuPolicy === 'shared') {
      add(GENERAL + THREADS, cell.vcpus * SHARED_VCPU);
      add(GENERAL + WIDE, cell.vcpus * SHARED_VCPU);
    } else {
      const realtime = needs.cpuPolicy === 'realtime';
      const [pool, thread] = realtime ? [ISOLATED, 1] : [GENERAL, shares];
      // "require" has whole cores: of an odd size, one thread more.
      const threads = needs.smt === 'require' ? 2 * Math.ceil(cell.vcpus / 2) : cell.vcpus;
      add(pool + THREADS, threads * thread);
      add(pool + WIDE, threads * thread * (needs.smt === 'isolate' ? 2 : 1));
      if (needs.smt === 'isolate') add(pool + CORES, cell.vcpus);
      if (needs.smt === 'require') {
        add(pool + CORES, threads / 2);
        add(pool + SMT_CORES, threads / 2);
      }
    }
    if (first && extraCpus(needs) > 0) {
      const [pool, thread] = hasGeneral ? [GENERAL, shares] : [ISOLATED, 1];
      add(pool + THREADS, extraCpus(needs) * thread);
      add(pool + WIDE, extraCpus(needs) * thread);
    }
    for (const { classIndex, count } of devices) add(DEVICES + classIndex, count);
    const entries = [...amounts].toSorted(([a], [b]) => a - b);
    return {
      dimensions: Int32Array.from(entries, ([dimension]) => dimension),
      // More than fits the number is more than any host has.
      amounts: Int32Array.from(entries, ([, amount]) => Math.min(amount, AMOUNT_MAX)),
    };
  };
  return { vcpus: cell.vcpus, memoryMib: cell.memoryMib, general: build(true), isolatedOnly: build(false) };
}
