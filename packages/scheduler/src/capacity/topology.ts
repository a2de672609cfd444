// SPDX-License-Identifier: Apache-2.0
import type { Host, NumaNode, PlacementPolicy } from '../model.ts';
import { DEVICES } from './dimensions.ts';

/**
 * Hosts as flat arrays. Hosts, NUMA nodes, cores and CPUs are numbered through the whole cluster; what belongs to host h is
 * from `xOfHost[h]` to `xOfHost[h + 1]`.
 */
export interface Topology {
  readonly hosts: readonly Host[];
  /** By id. */
  readonly hostIndex: ReadonlyMap<string, number>;
  readonly nodeOfHost: Int32Array;
  readonly hostOfNode: Int32Array;
  /** Some host has more than one NUMA node. */
  readonly isNuma: boolean;
  /** The kernel's number of each NUMA node. */
  readonly nodeIds: Int32Array;
  /** Cores of a node: general ones from coreOfNode[n] to isolatedCoreOfNode[n], isolated ones from there to coreOfNode[n + 1]. */
  readonly coreOfNode: Int32Array;
  readonly isolatedCoreOfNode: Int32Array;
  readonly nodeOfCore: Int32Array;
  /** Usable CPUs of each core as the host numbers them: two entries a core, -1 for none. */
  readonly cpusOfCore: Int32Array;
  /** 1: none of its threads is reserved, offline apart or of the other pool, so that it can be had whole. */
  readonly wholeCore: Uint8Array;
  /** 1: its other thread is of the other pool, so that who is here disturbs a realtime VM, or is disturbed by one. */
  readonly mixedCore: Uint8Array;
  /** 1: the host has a pool with whole cores of one and of two threads. */
  readonly isHybrid: Uint8Array;
  /** 1: the node has CPUs that are not isolated. */
  readonly hasGeneral: Uint8Array;
  /** Equal for nodes of equal capacity and pools. */
  readonly kindOfNode: Int32Array;
  /** Memory in normal pages for VMs, MiB. */
  readonly memoryMib: Int32Array;
  readonly pages2m: Int32Array;
  readonly pages1g: Int32Array;
  /** SLIT distances of each node to those of its host, in their order; empty when unknown. */
  readonly distances: readonly (readonly number[])[];
  readonly deviceClasses: readonly string[];
  /** Addresses of the devices of a node: devices[node * classes + class], ascending. */
  readonly devices: readonly (readonly string[])[];
  /** Of devices whose node is unknown: [host * classes + class]. */
  readonly looseDevices: readonly (readonly string[])[];
  /** Numbers per node in arrays of dimensions. */
  readonly stride: number;
}

/** More threads of a core than these are not given to VMs: what runs Busbar has two at most. */
const THREADS_MAX = 2;

export function topologyOf(given: readonly Host[], policy: PlacementPolicy): Topology {
  const hosts = given.map(eachDeviceOnce).toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  const deviceClasses = [...new Set(hosts.flatMap(({ devices }) => devices.map((device) => device.class)))].toSorted();
  const nodes = hosts.flatMap((host) => host.numaNodes.map((node) => ({ host, node })));
  const nodeOfHost = new Int32Array(hosts.length + 1);
  const hostOfNode = new Int32Array(nodes.length);
  hosts.forEach((host, h) => {
    const first = nodeOfHost[h] ?? 0;
    nodeOfHost[h + 1] = first + host.numaNodes.length;
    hostOfNode.fill(h, first, first + host.numaNodes.length);
  });
  const coreOfNode = new Int32Array(nodes.length + 1);
  const isolatedCoreOfNode = new Int32Array(nodes.length);
  const hasGeneral = new Uint8Array(nodes.length);
  const nodeOfCore: number[] = [];
  const cpusOfCore: number[] = [];
  const wholeCore: number[] = [];
  const mixedCore: number[] = [];
  nodes.forEach(({ host, node }, n) => {
    const { general, isolated } = coresOf(node, host);
    for (const core of [...general, ...isolated]) {
      nodeOfCore.push(n);
      cpusOfCore.push(core.cpus[0] ?? -1, core.cpus[1] ?? -1);
      wholeCore.push(core.whole ? 1 : 0);
      mixedCore.push(core.mixed ? 1 : 0);
    }
    isolatedCoreOfNode[n] = (coreOfNode[n] ?? 0) + general.length;
    coreOfNode[n + 1] = nodeOfCore.length;
    hasGeneral[n] = general.length > 0 ? 1 : 0;
  });
  const pages = (sizeMib: number) =>
    Int32Array.from(nodes, ({ node }) =>
      node.hugepages.reduce((sum, pool) => sum + (pool.sizeMib === sizeMib ? pool.pages : 0), 0),
    );
  const memoryMib = Int32Array.from(hosts.flatMap((host) => memoryForVms(host, policy)));
  const kinds = new Map<string, number>();
  const kindOfNode = Int32Array.from(nodes, ({ host, node }, n) => {
    const cores = [...wholeCore.slice(coreOfNode[n], coreOfNode[n + 1])].join('');
    const threads = cpusOfCore
      .slice(2 * (coreOfNode[n] ?? 0), 2 * (coreOfNode[n + 1] ?? 0))
      .map((cpu) => (cpu < 0 ? 0 : 1));
    const isolated = (isolatedCoreOfNode[n] ?? 0) - (coreOfNode[n] ?? 0);
    const devices = deviceClasses.map(
      (name) => addresses(host, name, (at) => at === node.id || (at === null && isUniform(host))).length,
    );
    const key = [memoryMib[n], JSON.stringify(node.hugepages), cores, threads.join(''), isolated, devices.join()].join(
      ' ',
    );
    const kind = kinds.get(key) ?? kinds.size;
    kinds.set(key, kind);
    return kind;
  });
  return {
    kindOfNode,
    hosts,
    hostIndex: new Map(hosts.map(({ id }, h) => [id, h])),
    nodeOfHost,
    hostOfNode,
    isNuma: hosts.some(({ numaNodes }) => numaNodes.length > 1),
    nodeIds: Int32Array.from(nodes, ({ node }) => node.id),
    coreOfNode,
    isolatedCoreOfNode,
    nodeOfCore: Int32Array.from(nodeOfCore),
    cpusOfCore: Int32Array.from(cpusOfCore),
    wholeCore: Uint8Array.from(wholeCore),
    mixedCore: Uint8Array.from(mixedCore),
    isHybrid: Uint8Array.from(hosts, (host) => (host.numaNodes.some((node) => isHybridNode(node, host)) ? 1 : 0)),
    hasGeneral,
    memoryMib,
    pages2m: pages(2),
    pages1g: pages(1024),
    distances: nodes.map(({ node }) => node.distances),
    deviceClasses,
    devices: nodes.flatMap(({ host, node }) =>
      deviceClasses.map((name) => addresses(host, name, (at) => at === node.id || (at === null && isUniform(host)))),
    ),
    looseDevices: hosts.flatMap((host) =>
      deviceClasses.map((name) => (isUniform(host) ? [] : addresses(host, name, (at) => at === null))),
    ),
    stride: DEVICES + 2 * deviceClasses.length,
  };
}

/** An address is one device, however often and as whatever it is named: it can be given once. */
function eachDeviceOnce(host: Host): Host {
  const known = new Map(host.devices.toReversed().map((device) => [device.address, device]));
  return known.size === host.devices.length ? host : { ...host, devices: [...known.values()].toReversed() };
}

/** Platforms with one NUMA node often do not say that a device belongs to it. */
const isUniform = (host: Host) => host.numaNodes.length === 1;

function addresses(host: Host, name: string, isThere: (node: number | null) => boolean): readonly string[] {
  return host.devices
    .filter((device) => device.class === name && isThere(device.numaNode))
    .map(({ address }) => address)
    .toSorted();
}

function isHybridNode(node: NumaNode, host: Host): boolean {
  const { general, isolated } = coresOf(node, host);
  return [general, isolated].some(
    (pool) => new Set(pool.filter(({ whole }) => whole).map(({ cpus }) => cpus.length)).size > 1,
  );
}

interface Core {
  readonly cpus: readonly number[];
  readonly whole: boolean;
  readonly mixed: boolean;
}

function coresOf(
  node: NumaNode,
  host: Host,
): { readonly general: readonly Core[]; readonly isolated: readonly Core[] } {
  const online = new Set(node.cpus);
  const [reserved, isolated] = [new Set(host.reservedCpus), new Set(host.isolatedCpus)];
  const named = node.smtSiblings.map((set) => set.filter((cpu) => online.has(cpu)).toSorted((a, b) => a - b));
  const grouped = new Set(named.flat());
  const sets = [...named, ...node.cpus.filter((cpu) => !grouped.has(cpu)).map((cpu) => [cpu])]
    .filter((set) => set.length > 0)
    .toSorted(([a = 0], [b = 0]) => a - b);
  const pool = (wanted: (cpu: number) => boolean): readonly Core[] =>
    sets.flatMap((set) => {
      const cpus = set.filter((cpu) => !reserved.has(cpu) && wanted(cpu));
      const mixed = set.some((cpu) => !reserved.has(cpu) && !wanted(cpu));
      return cpus.length === 0 ? [] : [{ cpus: cpus.slice(0, THREADS_MAX), whole: cpus.length === set.length, mixed }];
    });
  return { general: pool((cpu) => !isolated.has(cpu)), isolated: pool((cpu) => isolated.has(cpu)) };
}

/** What the host keeps for itself comes from all nodes alike: the kernel and Ceph allocate wherever they run. */
function memoryForVms(host: Host, policy: PlacementPolicy): readonly number[] {
  const normal = host.numaNodes.map((node) =>
    Math.max(0, node.memoryMib - node.hugepages.reduce((sum, { sizeMib, pages }) => sum + sizeMib * pages, 0)),
  );
  const all = normal.reduce((sum, mib) => sum + mib, 0);
  const kept = Math.min(all, host.reservedMemoryMib ?? policy.hostReservedMemoryMib);
  let [before, keptBefore] = [0, 0];
  return normal.map((mib) => {
    before += mib;
    const keptHere = Math.ceil((kept * before) / Math.max(1, all)) - keptBefore;
    keptBefore += keptHere;
    return Math.max(0, Math.floor(mib - keptHere));
  });
}
