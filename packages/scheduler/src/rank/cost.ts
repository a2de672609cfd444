// SPDX-License-Identifier: Apache-2.0
import {
  CORES,
  DEVICES,
  GENERAL,
  ISOLATED,
  MEMORY,
  PAGES_1G,
  PAGES_2M,
  SMT_CORES,
  THREADS,
} from '../capacity/dimensions.ts';
import { demandOn, fitsNode, type Room } from '../fit/room.ts';
import type { PlacementPolicy, ScorePart } from '../model.ts';
import type { CellDemand, Demand, Shape } from '../shape/shape.ts';
import type { Mix } from './mix.ts';
import { isOn, type Plane, planeOf, wasteAt } from './plane.ts';

/**
 * What a placement costs, the least wins. One table; the unit is an expected request: 1 means that one of them less will find
 * room.
 *
 * | part          | weight | reason |
 * |---------------|--------|--------|
 * | waste         | 1      | CPUs and memory that can never be used, more than before, if the node is filled on with what is expected (plane.ts) |
 * | rareRoom      | 1      | of each expected shape that needs whole cores, devices, or memory of another kind than most, weighted by its share: how many fewer fit the node. Keeps what is rare for those who need it |
 * | roomOnPlane   | 0.15   | the same for the shapes that `waste` judges: waste knows how well a node can be filled, not that the large ones need a gap somewhere. 0.05 to 0.5 do as well; without it nodes that hold two large VMs end at 97 % |
 * | emptiness     | 0.02   | (pack) how empty the node is: of about equal ones the fullest, so that large gaps and empty hosts stay. Less than 0.01 gives them away, more than 0.05 is best fit. Where rareRoom alone decides, 0.03 of a request for each share of a node that is free |
 * | load          | 1000   | (spread) share of the host's CPUs and memory used afterwards, memory twice: it cannot be over-committed; and a tenth of the same of the node. Large: the rest only decides among equal load |
 * | farDevice     | 1e5    | each device that should be near and is not: it was asked for, so it counts more than any load |
 * | splitNuma     | 1e6    | each NUMA node more than needed: memory access across nodes costs every instruction, for ever |
 * | softRule      | 1e7    | each soft rule that is broken: more than any split, since somebody asked for it |
 * | preferredHost | 1e9    | each place in the list of preferred hosts: more than all else, an engineer knows why |
 */
export const WEIGHTS = {
  waste: 1,
  rareRoom: 1,
  roomOnPlane: 0.15,
  emptiness: 0.02,
  emptinessBySlots: 0.03,
  load: 1000,
  farDevice: 1e5,
  splitNuma: 1e6,
  softRule: 1e7,
  preferredHost: 1e9,
} as const;

/** The expected shapes in flat arrays, for one kind of node: shape i has the dimensions from start[i] to start[i + 1]. */
interface FlatMix {
  readonly start: Int32Array;
  readonly dimensions: Int32Array;
  readonly amounts: Int32Array;
  readonly weights: Float64Array;
}

/** Costs of whole placements on single nodes; knows the expected mix. */
export class Costs {
  readonly #room: Room;
  readonly #policy: PlacementPolicy;
  readonly #capacity: Int32Array;
  #general: FlatMix = flatten({ shapes: [], weights: new Float64Array() }, null, true);
  #isolatedOnly: FlatMix = this.#general;
  #plane: Plane | null = null;
  readonly #smt: boolean;
  /** How many of each expected shape fit each node now: [node * shapes + shape]. */
  #slots = new Int32Array();
  /** The demand that is being judged, by dimension. */
  readonly #demand: Int32Array;

  constructor(room: Room, capacity: Int32Array, policy: PlacementPolicy) {
    this.#room = room;
    this.#capacity = capacity;
    this.#policy = policy;
    this.#demand = new Int32Array(room.topology.stride);
    const { stride } = room.topology;
    this.#smt = capacity.some((amount, at) => amount > 0 && SMT_DIMENSIONS.includes(at % stride));
  }

  setMix(mix: Mix): void {
    this.#plane = planeOf(mix, this.#capacity, this.#room.topology.stride, this.#smt);
    this.#general = flatten(mix, this.#plane, true);
    this.#isolatedOnly = flatten(mix, this.#plane, false);
    this.#slots = new Int32Array(this.#room.topology.nodeIds.length * this.#general.weights.length);
    for (let node = 0; node < this.#room.topology.nodeIds.length; node++) this.refresh(node);
  }

  /** The node's room changed. */
  refresh(node: number): void {
    const mix = this.#mixOn(node);
    const at = node * this.#room.topology.stride;
    const count = mix.weights.length;
    for (let i = 0; i < count; i++) this.#slots[node * count + i] = slotsIn(mix, i, this.#room.amounts, at, NOTHING);
  }

  /** Of the whole VM on one node; infinite when it does not fit. */
  whole({ whole, looseDevices }: Shape, node: number): number {
    if (whole === null || !fitsNode(this.#room, demandOn(this.#room.topology, whole, node), node)) {
      return Number.POSITIVE_INFINITY;
    }
    const cost = this.#costOf(whole, node);
    return looseDevices.length === 0 ? cost : cost + this.#far(looseDevices, node);
  }

  /** The node of the host that takes the whole VM at the least cost, the first of equals; -1 when none does. */
  cheapest(shape: Shape, host: number): number {
    const { nodeOfHost } = this.#room.topology;
    const end = nodeOfHost[host + 1] as number;
    let least = Number.POSITIVE_INFINITY;
    let best = -1;
    for (let node = nodeOfHost[host] as number; node < end; node++) {
      const cost = this.whole(shape, node);
      if (cost < least) [least, best] = [cost, node];
    }
    return best;
  }

  /** What the cost of a whole placement is made of. */
  parts(shape: Shape, node: number): readonly ScorePart[] {
    const cell = shape.whole;
    if (cell === null) return [];
    const demand = this.#setDemand(cell, node);
    const parts = [
      { name: 'waste', value: this.#waste(node) },
      { name: 'rareRoom', value: this.#rareRoom(node) },
      this.#policy.prefer === 'pack'
        ? { name: 'emptiness', value: this.emptiness(node) }
        : { name: 'load', value: this.#load(node) },
    ];
    this.#unset(demand);
    parts.push({ name: 'farDevice', value: this.#far(shape.looseDevices, node) });
    return parts.filter(({ value }) => value !== 0);
  }

  /** Free CPUs and memory as shares of all, weighted. */
  emptiness(node: number): number {
    const base = node * this.#room.topology.stride;
    let sum = 0;
    for (let i = 0; i < LOAD_DIMENSIONS.length; i++) {
      const at = base + (LOAD_DIMENSIONS[i] as number);
      const all = this.#capacity[at] as number;
      if (all > 0) sum += (this.#room.amounts[at] as number) / all;
    }
    return sum * (this.#plane === null ? WEIGHTS.emptinessBySlots : WEIGHTS.emptiness * this.#plane.requestsPerNode);
  }

  /** Towards full nodes or idle ones, as the policy says, before anything is taken. */
  leaning(node: number): number {
    return this.#policy.prefer === 'pack' ? this.emptiness(node) : this.#load(node);
  }

  #costOf(cell: CellDemand, node: number): number {
    const demand = this.#setDemand(cell, node);
    const cost =
      this.#waste(node) +
      this.#rareRoom(node) +
      (this.#policy.prefer === 'pack' ? this.emptiness(node) : this.#load(node));
    this.#unset(demand);
    return cost;
  }

  /** Devices that should be on the node and are not. */
  #far(devices: Shape['looseDevices'], node: number): number {
    const at = node * this.#room.topology.stride + DEVICES;
    let far = 0;
    for (const { classIndex, count, near } of devices) {
      if (near) far += count - Math.min(count, Math.max(0, this.#room.amounts[at + classIndex] as number));
    }
    return WEIGHTS.farDevice * far;
  }

  #setDemand(cell: CellDemand, node: number): Demand {
    const demand = demandOn(this.#room.topology, cell, node);
    const { dimensions, amounts } = demand;
    for (let i = 0; i < dimensions.length; i++) this.#demand[dimensions[i] as number] = amounts[i] as number;
    return demand;
  }

  #unset({ dimensions }: Demand): void {
    for (let i = 0; i < dimensions.length; i++) this.#demand[dimensions[i] as number] = 0;
  }

  #waste(node: number): number {
    const plane = this.#plane;
    if (plane === null) return 0;
    const cpu = this.#demand[plane.demandDimension] as number;
    const memory = this.#demand[plane.memoryDimension] as number;
    if (cpu === 0 && memory === 0) return 0;
    const at = node * this.#room.topology.stride;
    const cpuLeft = this.#room.amounts[at + plane.cpuDimension] as number;
    const memoryLeft = this.#room.amounts[at + plane.memoryDimension] as number;
    const more = wasteAt(plane, cpuLeft - cpu, memoryLeft - memory) - wasteAt(plane, cpuLeft, memoryLeft);
    return WEIGHTS.waste * plane.requestsPerNode * more;
  }

  #rareRoom(node: number): number {
    const mix = this.#mixOn(node);
    const { weights } = mix;
    const count = weights.length;
    const at = node * this.#room.topology.stride;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      const before = this.#slots[node * count + i] as number;
      // Nothing to lose: common where the node is full.
      if (before === 0) continue;
      const after = slotsIn(mix, i, this.#room.amounts, at, this.#demand);
      if (after !== before) sum += (weights[i] as number) * (before - after);
    }
    return sum;
  }

  /** Shares of CPUs and memory used afterwards: of the host, and a little of the node, so that its nodes fill evenly too. */
  #load(node: number): number {
    const { nodeOfHost, hostOfNode } = this.#room.topology;
    const host = hostOfNode[node] as number;
    const [first, end] = [nodeOfHost[host] as number, nodeOfHost[host + 1] as number];
    const ofNode = this.#usedShare(node, node + 1);
    return WEIGHTS.load * (end - first === 1 ? 1.1 * ofNode : this.#usedShare(first, end) + 0.1 * ofNode);
  }

  /** Of the nodes from `first` on, once the demand is taken. */
  #usedShare(first: number, end: number): number {
    const { stride } = this.#room.topology;
    let sum = 0;
    for (let i = 0; i < LOAD_DIMENSIONS.length; i++) {
      const dimension = LOAD_DIMENSIONS[i] as number;
      let [all, left] = [0, -(this.#demand[dimension] as number)];
      for (let at = first; at < end; at++) {
        all += this.#capacity[at * stride + dimension] as number;
        left += this.#room.amounts[at * stride + dimension] as number;
      }
      if (all > 0) sum += (dimension === MEMORY ? 2 : 1) * (1 - left / all);
    }
    return sum;
  }

  #mixOn(node: number): FlatMix {
    return this.#room.topology.hasGeneral[node] === 1 ? this.#general : this.#isolatedOnly;
  }
}

const NOTHING = new Int32Array(1024);

/** How many copies of an expected shape fit what is left of a node. */
function slotsIn(mix: FlatMix, index: number, room: Int32Array, at: number, taken: Int32Array): number {
  const end = mix.start[index + 1] as number;
  let least = Number.POSITIVE_INFINITY;
  for (let i = mix.start[index] as number; i < end; i++) {
    const dimension = mix.dimensions[i] as number;
    const left = (room[at + dimension] as number) - (taken[dimension] as number);
    const amount = mix.amounts[i] as number;
    if (left < amount) return 0;
    const count = left / amount;
    if (count < least) least = count;
  }
  return Math.floor(least);
}

/** Those that the plane judges weigh less here. */
function flatten(mix: Mix, plane: Plane | null, general: boolean): FlatMix {
  const judged = mix.shapes.flatMap((shape, i) => {
    const demand = general ? shape.whole?.general : shape.whole?.isolatedOnly;
    if (demand === undefined) return [];
    const needsMore = demand.dimensions.some((at) => at >= DEVICES || CORE_DIMENSIONS.includes(at));
    const isJudged = plane !== null && isOn(plane, shape) && !needsMore;
    const weight = (mix.weights[i] ?? 0) * (isJudged ? WEIGHTS.roomOnPlane : WEIGHTS.rareRoom);
    return [{ demand, weight }];
  });
  const demands = judged.map(({ demand }) => demand);
  const start = [0];
  for (const { dimensions } of demands) start.push((start.at(-1) ?? 0) + dimensions.length);
  return {
    start: Int32Array.from(start),
    dimensions: Int32Array.from(demands.flatMap(({ dimensions }) => [...dimensions])),
    amounts: Int32Array.from(demands.flatMap(({ amounts }) => [...amounts])),
    weights: Float64Array.from(judged, ({ weight }) => weight),
  };
}

const SMT_DIMENSIONS: readonly number[] = [GENERAL + SMT_CORES, ISOLATED + SMT_CORES];
const CORE_DIMENSIONS: readonly number[] = [GENERAL + CORES, ISOLATED + CORES];
const LOAD_DIMENSIONS: readonly number[] = [MEMORY, PAGES_2M, PAGES_1G, GENERAL + THREADS, ISOLATED + THREADS];
