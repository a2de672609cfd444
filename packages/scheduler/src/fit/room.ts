// SPDX-License-Identifier: Apache-2.0
import type { Topology } from '../capacity/topology.ts';
import type { CellDemand, Demand } from '../shape/shape.ts';

/** What may be used: like Ledger.free, with what is kept for failures taken off. */
export interface Room {
  readonly topology: Topology;
  readonly amounts: Int32Array;
}

export function demandOn(topology: Topology, cell: CellDemand, node: number): Demand {
  return topology.hasGeneral[node] === 1 ? cell.general : cell.isolatedOnly;
}

export function fitsNode(room: Room, demand: Demand, node: number): boolean {
  const at = node * room.topology.stride;
  const { dimensions, amounts } = demand;
  for (let i = 0; i < dimensions.length; i++) {
    if ((room.amounts[at + (dimensions[i] as number)] as number) < (amounts[i] as number)) return false;
  }
  return true;
}
