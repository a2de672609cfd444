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
import type { GuestCell, PlacementPolicy } from '../model.ts';
import { type CellDemand, cellDemand, type Demand, type Shape } from '../shape/shape.ts';
import { assignCells } from './assign.ts';
import { demandOn, fitsNode, type Room } from './room.ts';
import { type Seat, type Seating, withDevices } from './seating.ts';

/** More than one node: explicit cells, or a VM that no node takes whole. null when the host cannot. */
export function seatSpread(room: Room, shape: Shape, host: number, policy: PlacementPolicy): Seating | null {
  if (shape.cells.length > 0) return seatCells(room, shape, host, policy, shape.needs.cells);
  if (!shape.maySplit) return null;
  if (shape.needs.guestNuma === 'none') return seatFreely(room, shape, host, policy);
  const { nodeOfHost } = room.topology;
  const nodes = (nodeOfHost[host + 1] ?? 0) - (nodeOfHost[host] ?? 0);
  for (let count = 2; count <= Math.min(nodes, shape.needs.vcpus); count++) {
    const seating = seatCells(room, shape, host, policy, equalCells(shape, count));
    if (seating !== null) return seating;
  }
  return null;
}

/** As equal as whole vCPUs and pages allow; the first ones are the larger. */
function equalCells(shape: Shape, count: number): readonly GuestCell[] {
  const { vcpus, memoryMib, hugepageMib } = shape.needs;
  const unitMib = hugepageMib === 0 ? 1 : hugepageMib;
  const units = Math.ceil(memoryMib / unitMib);
  const part = (all: number, index: number) => Math.floor(all / count) + (index < all % count ? 1 : 0);
  return Array.from({ length: count }, (_, i) => ({ vcpus: part(vcpus, i), memoryMib: part(units, i) * unitMib }));
}

/** Each cell on a node of its own. Devices that are bound come from one of these nodes, those of a request together. */
function seatCells(
  room: Room,
  shape: Shape,
  host: number,
  policy: PlacementPolicy,
  cells: readonly GuestCell[],
): Seating | null {
  for (const holders of holdersOfDevices(shape, cells.length)) {
    const demands = cells.map((cell, index) =>
      cellDemand(shape.needs, cell, {
        first: index === 0,
        devices: shape.boundDevices.filter((_, device) => holders[device] === index),
        policy,
      }),
    );
    const nodes = assignCells(room, demands, host);
    if (nodes === null) continue;
    const seats = cells.map((cell, index) => ({ node: nodes[index] ?? 0, ...cell }));
    const bound = shape.boundDevices.map((each, device) => ({
      ...each,
      node: nodes[holders[device] ?? 0] ?? 0,
      loose: false,
      bound: true,
    }));
    const seating = withDevices(room, shape, host, seats, bound);
    if (seating !== null) return seating;
  }
  return null;
}

/** Which cell has the devices of each request: every possibility, the first cell first. */
function* holdersOfDevices(shape: Shape, cells: number): Generator<readonly number[]> {
  const requests = shape.boundDevices.length;
  const holders = new Array<number>(requests).fill(0);
  for (;;) {
    yield holders;
    let at = 0;
    while (at < requests && holders[at] === cells - 1) holders[at++] = 0;
    if (at === requests) return;
    holders[at] = (holders[at] ?? 0) + 1;
  }
}

/** vCPUs and memory in any parts over the nodes, those with most of what is asked first, so that there are few parts. */
function seatFreely(room: Room, shape: Shape, host: number, policy: PlacementPolicy): Seating | null {
  const { topology } = room;
  const { needs } = shape;
  if (!sumsSuffice(room, shape, host, policy)) return null;
  const first = topology.nodeOfHost[host] ?? 0;
  const nodes = Array.from({ length: (topology.nodeOfHost[host + 1] ?? 0) - first }, (_, i) => first + i);
  const cpus = (node: number) => vcpusOn(room, shape, node, policy);
  const at = (node: number, dimension: number) => Math.max(0, room.amounts[node * topology.stride + dimension] ?? 0);
  const pageDimension = needs.hugepageMib === 0 ? MEMORY : needs.hugepageMib === 2 ? PAGES_2M : PAGES_1G;
  const unitMib = needs.hugepageMib === 0 ? 1 : needs.hugepageMib;
  const units = Math.ceil(needs.memoryMib / unitMib);
  // QEMU's own memory and the emulator's CPUs stay together, on the first node that has room for them.
  const extras = extraDemand(shape, policy);
  const ordered = nodes.toSorted(
    (a, b) =>
      Math.min(cpus(b) / needs.vcpus, at(b, pageDimension) / units) -
        Math.min(cpus(a) / needs.vcpus, at(a, pageDimension) / units) || a - b,
  );
  for (const anchor of ordered) {
    if (!fitsNode(room, demandOn(topology, extras, anchor), anchor)) continue;
    const others = [anchor, ...ordered.filter((node) => node !== anchor)];
    const left = less(room, demandOn(topology, extras, anchor), anchor);
    let [vcpusLeft, unitsLeft] = [needs.vcpus, units];
    const seats: Seat[] = [];
    for (const node of others) {
      const vcpus = Math.min(vcpusLeft, vcpusOn(left, shape, node, policy));
      const pages = Math.min(unitsLeft, Math.max(0, left.amounts[node * topology.stride + pageDimension] ?? 0));
      if (vcpus + pages === 0) {
        // QEMU's memory would be all that is on this node.
        if (node === anchor) break;
        continue;
      }
      vcpusLeft -= vcpus;
      unitsLeft -= pages;
      seats.push({ node, vcpus, memoryMib: pages * unitMib });
      if (vcpusLeft + unitsLeft === 0) break;
    }
    if (vcpusLeft + unitsLeft > 0) continue;
    const bound = shape.boundDevices.map((each) => ({
      ...each,
      node: seats.find(({ node }) => at(node, DEVICES + each.classIndex) >= each.count)?.node ?? -1,
      loose: false,
      bound: true,
    }));
    if (bound.some(({ node }) => node < 0)) continue;
    const seating = withDevices(room, shape, host, seats, bound);
    if (seating !== null) return seating;
  }
  return null;
}

/** Whether all nodes of the host have enough vCPUs and memory together: cheap, and nearly always the answer. */
export function sumsSuffice(room: Room, shape: Shape, host: number, policy: PlacementPolicy): boolean {
  const { nodeOfHost, stride } = room.topology;
  const { hugepageMib, memoryMib, vcpus } = shape.needs;
  const dimension = hugepageMib === 0 ? MEMORY : hugepageMib === 2 ? PAGES_2M : PAGES_1G;
  let memoryLeft = Math.ceil(memoryMib / (hugepageMib || 1));
  let vcpusLeft = vcpus;
  const end = nodeOfHost[host + 1] as number;
  for (let node = nodeOfHost[host] as number; node < end; node++) {
    memoryLeft -= Math.max(0, room.amounts[node * stride + dimension] as number);
    if (vcpusLeft > 0) vcpusLeft -= vcpusOn(room, shape, node, policy);
  }
  return memoryLeft <= 0 && vcpusLeft <= 0;
}

function extraDemand(shape: Shape, policy: PlacementPolicy): CellDemand {
  return cellDemand(shape.needs, { vcpus: 0, memoryMib: 0 }, { first: true, devices: [], policy });
}

/** The room without what the demand takes; only the host's own nodes may be looked at. */
function less(room: Room, demand: Demand, node: number): Room {
  const amounts = room.amounts.slice();
  demand.dimensions.forEach((dimension, i) => {
    const at = node * room.topology.stride + dimension;
    amounts[at] = (amounts[at] ?? 0) - (demand.amounts[i] ?? 0);
  });
  return { ...room, amounts };
}

/** How many of the shape's vCPUs a node has room for. */
function vcpusOn(room: Room, shape: Shape, node: number, policy: PlacementPolicy): number {
  const { needs } = shape;
  const realtime = needs.cpuPolicy === 'realtime';
  const at = node * room.topology.stride + (realtime ? ISOLATED : GENERAL);
  const has = (dimension: number) => Math.max(0, room.amounts[at + dimension] ?? 0);
  if (needs.cpuPolicy === 'shared') return Math.floor(Math.min(has(THREADS), has(WIDE)) / SHARED_VCPU);
  const thread = realtime ? 1 : threadShares(policy.vcpuOvercommit);
  const threads = Math.min(Math.floor(has(THREADS) / thread), Math.floor(has(WIDE) / thread));
  if (needs.smt === 'prefer') return threads;
  if (needs.smt === 'isolate') {
    return Math.min(has(CORES), Math.floor(has(THREADS) / thread), Math.floor(has(WIDE) / (2 * thread)));
  }
  // Pairs only: an odd part here would leave a thread over on each node.
  return Math.min(threads - (threads % 2), 2 * Math.min(has(CORES), has(SMT_CORES)));
}
