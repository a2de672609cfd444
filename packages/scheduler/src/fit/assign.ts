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
  const fits = Array.from(cells, (cell) => {
    const nodes: number[] = [];
    for (let node = first; node < first + count; node++) {
      if (fitsNode(room, demandOn(room.topology, cell, node), node)) nodes.push(node);
    }
    return nodes;
  });
  // Nearly always the answer is no, or there is but one pair of nodes: what is best matters only beyond that.
  const any = matching(fits, first, count);
  if (any === null || count <= 2) return any;
  // Fullest nodes first: the empty ones are kept for those who need them. Then those that lie together.
  const full = new Map(fits.flat().map((node) => [node, fullness(room, node)]));
  const ordered = fits.map((nodes) => nodes.toSorted((a, b) => (full.get(a) ?? 0) - (full.get(b) ?? 0) || a - b));
  return matching(nearest(room, ordered, first), first, count);
}

/** One of the nodes that it may have for each cell, each node once; of several assignments one with early choices. */
function matching(choices: readonly (readonly number[])[], first: number, count: number): readonly number[] | null {
  const cellOf = new Int32Array(count).fill(-1);
  const seenBy = new Int32Array(count).fill(-1);
  let round = 0;
  const augment = (cell: number): boolean => {
    for (const node of choices[cell] as readonly number[]) {
      const at = node - first;
      if (seenBy[at] === round) continue;
      seenBy[at] = round;
      const holder = cellOf[at] as number;
      if (holder < 0 || augment(holder)) {
        cellOf[at] = cell;
        return true;
      }
    }
    return false;
  };
  for (; round < choices.length; round++) if (!augment(round)) return null;
  const nodes = new Array<number>(choices.length);
  for (let at = 0; at < count; at++) if ((cellOf[at] as number) >= 0) nodes[cellOf[at] as number] = first + at;
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
