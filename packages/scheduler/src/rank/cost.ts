// SPDX-License-Identifier: Apache-2.0
import { GENERAL, ISOLATED, MEMORY, PAGES_1G, PAGES_2M, THREADS } from '../capacity/dimensions.ts';
import { demandOn, fitsNode, type Room } from '../fit/seat.ts';
import type { PlacementPolicy, ScorePart } from '../model.ts';
import type { Demand, Shape } from '../shape/shape.ts';
import type { Mix } from './mix.ts';

/**
 * What a placement costs, the least wins. One table, in units of "one expected request less that finds room":
 *
 * | part            | weight | reason |
 * |-----------------|--------|--------|
 * | rareRoom        | 1      | for each expected shape, weighted by its share: how many of it fit the node less than before. Keeps whole cores, pages and large gaps for who needs them |
 * | emptiness       | 0.01   | (pack) how empty the node is: of equal ones the fullest, so that empty hosts stay empty. Small, since it must only decide what rareRoom leaves open |
 * | load            | 1000   | (spread) share of CPUs and memory used afterwards, memory twice: it cannot be over-committed. Large: rareRoom only decides among equal load |
 * | splitNuma       | 1e6    | spread over more NUMA nodes than needed: memory access across nodes costs every instruction, for ever |
 * | softRule        | 1e7    | each soft rule that is broken: more than any split, since somebody asked for it |
 * | preferredHost   | 1e9    | each place in the list of preferred hosts: more than all else, an engineer knows why |
 */
export const WEIGHTS = {
  rareRoom: 1,
  emptiness: 0.01,
  load: 1000,
  splitNuma: 1e6,
  softRule: 1e7,
  preferredHost: 1e9,
} as const;

/** How many copies of a shape fit a node, by its demand. */
export function slots(room: Int32Array, at: number, demand: Demand): number {
  let least = Number.POSITIVE_INFINITY;
  const { dimensions, amounts } = demand;
  for (let i = 0; i < dimensions.length; i++) {
    const count = Math.floor((room[at + (dimensions[i] as number)] as number) / (amounts[i] as number));
    if (count < least) least = count;
  }
  return least > 0 ? least : 0;
}

/** Costs of whole placements on single nodes; knows the expected mix. */
export class Costs {
  readonly #room: Room;
  readonly #policy: PlacementPolicy;
  readonly #capacity: Int32Array;
  #mix: Mix = { shapes: [], weights: new Float64Array() };
  /** Copies of each shape of the mix that fit each node now, times its weight, summed up. */
  readonly #expected: Float64Array;
  readonly #after: Int32Array;

  constructor(room: Room, capacity: Int32Array, policy: PlacementPolicy) {
    this.#room = room;
    this.#capacity = capacity;
    this.#policy = policy;
    this.#expected = new Float64Array(room.topology.nodeIds.length);
    this.#after = new Int32Array(room.topology.stride);
  }

  setMix(mix: Mix): void {
    this.#mix = mix;
    for (let node = 0; node < this.#expected.length; node++) this.refresh(node);
  }

  /** The node's room changed. */
  refresh(node: number): void {
    this.#expected[node] = this.#expectedIn(this.#room.amounts, node * this.#room.topology.stride, node);
  }

  /** The node of the host that takes the whole VM at the least cost; -1 when none does. Its cost is then in `cheapestCost`. */
  cheapest(shape: Shape, host: number): number {
    const { topology } = this.#room;
    this.cheapestCost = Number.POSITIVE_INFINITY;
    if (shape.whole === null) return -1;
    const end = topology.nodeOfHost[host + 1] as number;
    let best = -1;
    for (let node = topology.nodeOfHost[host] as number; node < end; node++) {
      if (!fitsNode(this.#room, demandOn(topology, shape.whole, node), node)) continue;
      const cost = this.whole(shape, node);
      if (cost < this.cheapestCost || best < 0) [best, this.cheapestCost] = [node, cost];
    }
    return best;
  }

  cheapestCost = Number.POSITIVE_INFINITY;

  emptiness(node: number): number {
    const { topology, amounts } = this.#room;
    return WEIGHTS.emptiness * this.#freeShare(amounts, node * topology.stride, node);
  }

  whole(shape: Shape, node: number): number {
    const { rareRoom, emptiness, load } = this.#parts(shape, node);
    return rareRoom + emptiness + load;
  }

  parts(shape: Shape, node: number): readonly ScorePart[] {
    const { rareRoom, emptiness, load } = this.#parts(shape, node);
    const parts = [
      { name: 'rareRoom', value: rareRoom },
      { name: 'emptiness', value: emptiness },
      { name: 'load', value: load },
    ];
    return parts.filter(({ value }) => value !== 0);
  }

  #parts(shape: Shape, node: number): { rareRoom: number; emptiness: number; load: number } {
    const { topology, amounts } = this.#room;
    const at = node * topology.stride;
    const after = this.#after;
    for (let i = 0; i < after.length; i++) after[i] = amounts[at + i] as number;
    if (shape.whole !== null) {
      const demand = demandOn(topology, shape.whole, node);
      for (let i = 0; i < demand.dimensions.length; i++) {
        const dimension = demand.dimensions[i] as number;
        after[dimension] = (after[dimension] as number) - (demand.amounts[i] as number);
      }
    }
    const rareRoom = WEIGHTS.rareRoom * ((this.#expected[node] as number) - this.#expectedIn(after, 0, node));
    if (this.#policy.prefer === 'pack') {
      return { rareRoom, emptiness: this.emptiness(node), load: 0 };
    }
    return { rareRoom, emptiness: 0, load: WEIGHTS.load * this.#loadOf(after, node) };
  }

  #expectedIn(room: Int32Array, at: number, node: number): number {
    const { shapes, weights } = this.#mix;
    const general = this.#room.topology.hasGeneral[node] === 1;
    let sum = 0;
    for (let i = 0; i < shapes.length; i++) {
      const cell = (shapes[i] as Shape).whole;
      if (cell !== null) sum += (weights[i] as number) * slots(room, at, general ? cell.general : cell.isolatedOnly);
    }
    return sum;
  }

  /** Free CPUs and memory as shares of all, summed up. */
  #freeShare(room: Int32Array, at: number, node: number): number {
    const base = node * this.#room.topology.stride;
    let sum = 0;
    for (const dimension of LOAD_DIMENSIONS) {
      const all = this.#capacity[base + dimension] as number;
      if (all > 0) sum += (room[at + dimension] as number) / all;
    }
    return sum;
  }

  #loadOf(after: Int32Array, node: number): number {
    const base = node * this.#room.topology.stride;
    const used = (dimension: number) => {
      const all = this.#capacity[base + dimension] as number;
      return all > 0 ? 1 - (after[dimension] as number) / all : 0;
    };
    return 2 * used(MEMORY) + used(GENERAL + THREADS) + used(ISOLATED + THREADS) + used(PAGES_2M) + used(PAGES_1G);
  }
}

const LOAD_DIMENSIONS = [MEMORY, PAGES_2M, PAGES_1G, GENERAL + THREADS, ISOLATED + THREADS] as const;
