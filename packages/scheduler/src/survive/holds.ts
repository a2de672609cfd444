// SPDX-License-Identifier: Apache-2.0
import type { Topology } from '../capacity/topology.ts';
import type { Held } from '../fit/seating.ts';
import type { Demand } from '../shape/shape.ts';

/**
 * What the plan of each loss holds on each NUMA node, and what must be kept free for them: in each dimension the most that
 * any one of them holds, since one loss is survived at a time. Sparse: a loss touches few nodes.
 */
export class Holds {
  /** reserve[node * stride + dimension]: what must stay free. */
  readonly reserve: Int32Array;
  readonly #topology: Topology;
  /** Where a loss's hold on a node is kept: pool[slot * stride ...], by loss * nodes + node. */
  readonly #slots = new Map<number, number>();
  readonly #lossesOnNode: readonly number[][];
  #pool = new Int32Array(1024);

  constructor(topology: Topology) {
    this.#topology = topology;
    this.reserve = new Int32Array(topology.nodeIds.length * topology.stride);
    this.#lossesOnNode = Array.from(topology.nodeIds, () => []);
  }

  /** Losses whose plans hold or once held something on the node. */
  lossesOn(node: number): readonly number[] {
    return this.#lossesOnNode[node] ?? [];
  }

  amount(loss: number, node: number, dimension: number): number {
    const slot = this.#slots.get(loss * this.#topology.nodeIds.length + node);
    return slot === undefined ? 0 : (this.#pool[slot * this.#topology.stride + dimension] as number);
  }

  /** Whether the demand fits beside what the loss holds on the node. */
  fitsBeside(loss: number, { dimensions, amounts }: Demand, node: number, free: Int32Array): boolean {
    const { stride, nodeIds } = this.#topology;
    const slot = this.#slots.get(loss * nodeIds.length + node);
    const base = slot === undefined ? -1 : slot * stride;
    const at = node * stride;
    for (let i = 0; i < dimensions.length; i++) {
      const dimension = dimensions[i] as number;
      const held = base < 0 ? 0 : (this.#pool[base + dimension] as number);
      if ((free[at + dimension] as number) - held < (amounts[i] as number)) return false;
    }
    return true;
  }

  /** Whether the loss holds more on the node than there is. */
  exceeds(loss: number, node: number, free: Int32Array): boolean {
    const { stride, nodeIds } = this.#topology;
    const slot = this.#slots.get(loss * nodeIds.length + node);
    if (slot === undefined) return false;
    for (let i = 0; i < stride; i++) {
      const held = this.#pool[slot * stride + i] as number;
      if (held > 0 && held > (free[node * stride + i] as number)) return true;
    }
    return false;
  }

  /** How much more would have to be kept free, in shares of what is free there. */
  growth(loss: number, held: readonly Held[], free: Int32Array): number {
    const { stride } = this.#topology;
    let growth = 0;
    for (const { node, demand } of held) {
      for (let i = 0; i < demand.dimensions.length; i++) {
        const dimension = demand.dimensions[i] as number;
        const at = node * stride + dimension;
        const more = this.amount(loss, node, dimension) + (demand.amounts[i] as number) - (this.reserve[at] as number);
        if (more > 0) growth += more / Math.max(1, free[at] as number);
      }
    }
    return growth;
  }

  /** Adds to what a loss holds, or takes away, without touching what is kept free: for trying. */
  shift(loss: number, held: readonly Held[], sign: 1 | -1): void {
    for (const { node, demand } of held) {
      const base = this.#slotOf(loss, node) * this.#topology.stride;
      for (let i = 0; i < demand.dimensions.length; i++) {
        const at = base + (demand.dimensions[i] as number);
        this.#pool[at] = (this.#pool[at] as number) + sign * (demand.amounts[i] as number);
      }
    }
  }

  /** Brings what is kept free on a node up to date. `changed` gets it when that made a difference. */
  settle(node: number, changed: Set<number>): void {
    const { stride, nodeIds } = this.#topology;
    const most = new Int32Array(stride);
    for (const loss of this.#lossesOnNode[node] ?? []) {
      const base = (this.#slots.get(loss * nodeIds.length + node) as number) * stride;
      for (let i = 0; i < stride; i++)
        if ((this.#pool[base + i] as number) > (most[i] as number)) most[i] = this.#pool[base + i] as number;
    }
    for (let i = 0; i < stride; i++) {
      if (most[i] === this.reserve[node * stride + i]) continue;
      this.reserve[node * stride + i] = most[i] as number;
      changed.add(node);
    }
  }

  /** As settle, for what was added by one loss: cheaper, since it can only have grown. */
  raise(loss: number, held: readonly Held[], changed: Set<number>): void {
    const { stride } = this.#topology;
    for (const { node, demand } of held) {
      for (const dimension of demand.dimensions) {
        const amount = this.amount(loss, node, dimension);
        if (amount <= (this.reserve[node * stride + dimension] as number)) continue;
        this.reserve[node * stride + dimension] = amount;
        changed.add(node);
      }
    }
  }

  #slotOf(loss: number, node: number): number {
    const { stride, nodeIds } = this.#topology;
    const key = loss * nodeIds.length + node;
    const known = this.#slots.get(key);
    if (known !== undefined) return known;
    const slot = this.#slots.size;
    this.#slots.set(key, slot);
    this.#lossesOnNode[node]?.push(loss);
    if ((slot + 1) * stride > this.#pool.length) {
      const larger = new Int32Array(2 * this.#pool.length);
      larger.set(this.#pool);
      this.#pool = larger;
    }
    return slot;
  }
}
