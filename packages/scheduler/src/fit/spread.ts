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

/** Ways to share out several requests for devices over the nodes: more of them than any sensible VM has. */
const TRIES_MAX = 1000;

/** More than one node: explicit cells, or a VM that no node takes whole. null when the host cannot. */
export function seatSpread(room: Room, shape: Shape, host: number, policy: PlacementPolicy): Seating | null {
  // Explicit cells and nothing else: the usual case, without generators.
  if (shape.cells.length > 0 && !shape.maySplit && shape.boundDevices.length + shape.looseDevices.length === 0) {
    const nodes = assignCells(room, shape.cells, host);
    if (nodes === null) return null;
    return { seats: shape.needs.cells.map((cell, index) => ({ node: nodes[index] ?? 0, ...cell })), devices: [] };
  }
  for (const seating of spreadsOn(room, shape, host, policy, false)) return seating;
  return null;
}

/**
 * The ways in which several nodes can take the VM. `all`: also those that differ only in what they leave for others: every
 * assignment of cells to nodes, every choice of devices. vCPUs and memory of a VM without guest NUMA can be shared out in very
 * many ways; they are in one for each node that can have QEMU's part.
 */
export function* spreadsOn(
  room: Room,
  shape: Shape,
  host: number,
  policy: PlacementPolicy,
  all: boolean,
): Generator<Seating> {
  const where: Where = { room, shape, host, policy, all };
  if (shape.cells.length > 0) yield* seatCells(where, shape.needs.cells);
  if (!shape.maySplit) return;
  if (shape.needs.guestNuma === 'none') {
    yield* seatFreely(where);
    return;
  }
  const { nodeOfHost } = room.topology;
  const nodes = (nodeOfHost[host + 1] ?? 0) - (nodeOfHost[host] ?? 0);
  const { vcpus, memoryMib, hugepageMib } = shape.needs;
  // Every cell has a vCPU and a page.
  const most = Math.min(nodes, vcpus, Math.ceil(memoryMib / (hugepageMib || 1)));
  for (let count = 2; count <= most; count++) yield* seatCells(where, equalCells(shape, count));
}

interface Where {
  readonly room: Room;
  readonly shape: Shape;
  readonly host: number;
  readonly policy: PlacementPolicy;
  readonly all: boolean;
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
function* seatCells({ room, shape, host, policy, all }: Where, cells: readonly GuestCell[]): Generator<Seating> {
  // Nothing to try when the cells find no place without devices.
  const bare = cells.map((cell, index) => cellDemand(shape.needs, cell, { first: index === 0, devices: [], policy }));
  if (assignCells(room, bare, host) === null) return;
  let tries = 0;
  for (const holders of holdersOfDevices(shape, cells.length)) {
    if (++tries > TRIES_MAX) return;
    const demands = cells.map((cell, index) =>
      cellDemand(shape.needs, cell, {
        first: index === 0,
        devices: shape.boundDevices.filter((_, device) => holders[device] === index),
        policy,
      }),
    );
    const best = assignCells(room, demands, host);
    if (best === null) continue;
    for (const nodes of all ? assignments(room, demands, host) : [best]) {
      const seats = cells.map((cell, index) => ({ node: nodes[index] ?? 0, ...cell }));
      const bound = shape.boundDevices.map((each, device) => ({
        ...each,
        node: nodes[holders[device] ?? 0] ?? 0,
        loose: false,
        bound: true,
      }));
      yield* withDevices(room, shape, host, seats, bound, all);
    }
  }
}

/** Every assignment of a node of its own to each cell. */
function* assignments(room: Room, cells: readonly CellDemand[], host: number): Generator<readonly number[]> {
  const { nodeOfHost } = room.topology;
  const chosen: number[] = [];
  const step = function* (index: number): Generator<readonly number[]> {
    const cell = cells[index];
    if (cell === undefined) {
      yield chosen;
      return;
    }
    for (let node = nodeOfHost[host] ?? 0; node < (nodeOfHost[host + 1] ?? 0); node++) {
      if (chosen.slice(0, index).includes(node)) continue;
      if (!fitsNode(room, demandOn(room.topology, cell, node), node)) continue;
      chosen[index] = node;
      yield* step(index + 1);
    }
  };
  yield* step(0);
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
function* seatFreely({ room, shape, host, policy, all }: Where): Generator<Seating> {
  const { topology } = room;
  const { needs } = shape;
  if (!sumsSuffice(room, shape, host, policy)) return;
  const first = topology.nodeOfHost[host] ?? 0;
  const nodes = Array.from({ length: (topology.nodeOfHost[host + 1] ?? 0) - first }, (_, i) => first + i);
  const at = (node: number, dimension: number) => Math.max(0, room.amounts[node * topology.stride + dimension] ?? 0);
  const pageDimension = needs.hugepageMib === 0 ? MEMORY : needs.hugepageMib === 2 ? PAGES_2M : PAGES_1G;
  const unitMib = needs.hugepageMib === 0 ? 1 : needs.hugepageMib;
  const units = Math.ceil(needs.memoryMib / unitMib);
  const share = new Map(
    nodes.map((node) => [
      node,
      Math.min(vcpusOn(room, shape, node, policy) / needs.vcpus, at(node, pageDimension) / units),
    ]),
  );
  const ordered = nodes.toSorted((a, b) => (share.get(b) ?? 0) - (share.get(a) ?? 0) || a - b);
  // QEMU's own memory and the emulator's CPUs stay together, on a node that has room for them.
  const extras = extraDemand(shape, policy);
  for (const anchor of ordered) {
    if (!fitsNode(room, demandOn(topology, extras, anchor), anchor)) continue;
    const left = less(room, demandOn(topology, extras, anchor), anchor);
    const offers = ordered.map((node) => ({
      node,
      vcpus: vcpusOn(left, shape, node, policy),
      units: Math.max(0, left.amounts[node * topology.stride + pageDimension] ?? 0),
    }));
    for (const holders of shape.boundDevices.length === 0 ? NO_HOLDERS : nodesOfDevices(room, shape, ordered)) {
      const parts = partsOf(offers, needs.vcpus, units, [...new Set([...holders, anchor])]);
      if (parts === null) continue;
      const seats = parts
        .map(({ node, vcpus, units }): Seat => ({ node, vcpus, memoryMib: units * unitMib }))
        // The first one carries what belongs to QEMU.
        .toSorted((a, b) => Number(b.node === anchor) - Number(a.node === anchor));
      const bound = shape.boundDevices.map((each, i) => ({
        ...each,
        node: holders[i] ?? 0,
        loose: false,
        bound: true,
      }));
      yield* withDevices(room, shape, host, seats, bound, all);
    }
  }
}

const NO_HOLDERS: readonly (readonly number[])[] = [[]];

/** What a node could have, or has, of a VM. */
interface Part {
  readonly node: number;
  readonly vcpus: number;
  readonly units: number;
}

/** Parts that add up to the VM, with something on each of the nodes that must be among them; these are filled first. */
function partsOf(
  offers: readonly Part[],
  vcpus: number,
  units: number,
  must: readonly number[],
): readonly Part[] | null {
  let [vcpusLeft, unitsLeft] = [vcpus, units];
  const least = new Map<number, Part>();
  // Those that can have only one of the two choose first.
  const choices = must
    .flatMap((node) => offers.find((offer) => offer.node === node) ?? [])
    .toSorted((a, b) => Number(a.vcpus > 0 && a.units > 0) - Number(b.vcpus > 0 && b.units > 0));
  for (const { node, ...offer } of choices) {
    if (offer.units > 0 && unitsLeft > 0) {
      least.set(node, { node, vcpus: 0, units: 1 });
      unitsLeft--;
    } else if (offer.vcpus > 0 && vcpusLeft > 0) {
      least.set(node, { node, vcpus: 1, units: 0 });
      vcpusLeft--;
    } else {
      return null;
    }
  }
  const parts: Part[] = [];
  const isMust = (offer: Part) => Number(least.has(offer.node));
  for (const { node, ...offer } of offers.toSorted((a, b) => isMust(b) - isMust(a))) {
    const has = least.get(node) ?? { vcpus: 0, units: 0 };
    const more = Math.min(vcpusLeft, offer.vcpus - has.vcpus);
    const moreUnits = Math.min(unitsLeft, offer.units - has.units);
    vcpusLeft -= more;
    unitsLeft -= moreUnits;
    const part = { node, vcpus: has.vcpus + more, units: has.units + moreUnits };
    if (part.vcpus + part.units > 0) parts.push(part);
  }
  return vcpusLeft + unitsLeft > 0 ? null : parts;
}

/** A node for the devices of each request, in every way, until TRIES_MAX. */
function* nodesOfDevices(room: Room, shape: Shape, nodes: readonly number[]): Generator<readonly number[]> {
  const { boundDevices } = shape;
  let tries = 0;
  const chosen: number[] = [];
  const step = function* (request: number): Generator<readonly number[]> {
    const wanted = boundDevices[request];
    if (wanted === undefined) {
      if (tries++ < TRIES_MAX) yield chosen;
      return;
    }
    for (const node of nodes) {
      const before = boundDevices.reduce(
        (sum, each, i) =>
          sum + (i < request && chosen[i] === node && each.classIndex === wanted.classIndex ? each.count : 0),
        0,
      );
      const have = room.amounts[node * room.topology.stride + DEVICES + wanted.classIndex] ?? 0;
      if (have - before < wanted.count || tries >= TRIES_MAX) continue;
      chosen[request] = node;
      yield* step(request + 1);
    }
  };
  yield* step(0);
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
