// SPDX-License-Identifier: Apache-2.0
import { GENERAL, ISOLATED, MEMORY, THREADS } from '../capacity/dimensions.ts';
import type { CellDemand } from '../shape/shape.ts';
import { demandOn, fitsNode, type Room } from './room.ts';

/**
 * A NUMA node of its own for each cell, or null when there is no such assignment. Cells do not compete for anything but
 * nodes, so this is a matching in a bipartite graph, found by augmenting paths (Kuhn 1955) in cells × nodes × cells steps;
 * trying permutations, as others do, takes minutes where a host has sixteen nodes.
 */
export function assignCells(room: Room, cells: readonly CellDemand[], host: number): readonly number[] | null {
  const { nodeOfHost } = room.topology;
  const first = nodeOfHost[host] ?? 0;
  const count = (nodeOfHost[host + 1] ?? 0) - first;
  if (cells.length > count) return null;
  // Fullest nodes first: the empty ones are kept for those who need them.
  const order = Array.from({ length: count }, (_, i) => first + i).toSorted(
    (a, b) => fullness(room, a) - fullness(room, b) || a - b,
  );
  const candidates = cells.map((cell) =>
    order.filter((node) => fitsNode(room, demandOn(room.topology, cell, node), node)),
  );
  if (candidates.some((nodes) => nodes.length === 0)) return null;
  const near = nearest(room, candidates, first);
  const cellOfNode = new Map<number, number>();
  const augment = (cell: number, seen: Set<number>): boolean => {
    for (const node of near[cell] ?? []) {
      if (seen.has(node)) continue;
      seen.add(node);
      const holder = cellOfNode.get(node);
      if (holder === undefined || augment(holder, seen)) {
        cellOfNode.set(node, cell);
        return true;
      }
    }
    return false;
  };
  for (let cell = 0; cell < cells.length; cell++) if (!augment(cell, new Set())) return null;
  const nodes = new Array<number>(cells.length);
  for (const [node, cell] of cellOfNode) nodes[cell] = node;
  return nodes;
}

function fullness(room: Room, node: number): number {
  const at = node * room.topology.stride;
  return (
    (room.amounts[at + MEMORY] ?? 0) +
    (room.amounts[at + GENERAL + THREADS] ?? 0) +
    (room.amounts[at + ISOLATED + THREADS] ?? 0)
  );
}

/** Candidates by their distance to the node that has most of them near: nodes of one VM should lie together. */
function nearest(
  room: Room,
  candidates: readonly (readonly number[])[],
  first: number,
): readonly (readonly number[])[] {
  const all = [...new Set(candidates.flat())];
  const distances = room.topology.distances;
  const distance = (a: number, b: number) => distances[a]?.[b - first] ?? (a === b ? 10 : 20);
  const farthest = (from: number) =>
    all
      .map((node) => distance(from, node))
      .toSorted((a, b) => a - b)
      .slice(0, candidates.length)
      .reduce((sum, each) => sum + each, 0);
  let centre = all[0] ?? 0;
  let least = Number.POSITIVE_INFINITY;
  for (const node of all) {
    const sum = farthest(node);
    if (sum < least) [centre, least] = [node, sum];
  }
  return candidates.map((nodes) => nodes.toSorted((a, b) => distance(centre, a) - distance(centre, b)));
}
