// SPDX-License-Identifier: Apache-2.0
import type { Topology } from '../capacity/topology.ts';
import type { PlacementPolicy } from '../model.ts';
import type { Shape } from '../shape/shape.ts';
import { demandOn, fitsNode, type Room } from './room.ts';
import { heldBy, type Seated, type Seating, withDevices } from './seating.ts';
import { spreadsOn, sumsSuffice } from './spread.ts';

/** All of the VM on one node. */
export function seatWhole(room: Room, shape: Shape, host: number, node: number): Seating | null {
  for (const seating of wholesOn(room, shape, host, node, false)) return seating;
  return null;
}

function wholesOn(room: Room, shape: Shape, host: number, node: number, all: boolean): Generator<Seating> {
  const seats = [{ node, vcpus: shape.needs.vcpus, memoryMib: shape.needs.memoryMib }];
  const bound = shape.boundDevices.map((each) => ({ ...each, node, loose: false, bound: true }));
  return withDevices(room, shape, host, seats, bound, all);
}

/** Whether a VM that no node takes whole may be on several. */
export function mayBeSpread(shape: Shape, topology: Topology): boolean {
  return shape.cells.length > 0 || (shape.maySplit && topology.isNuma);
}

/** Cheap, and nearly always the answer: false only when the host certainly cannot take the VM. */
export function mightSeat(room: Room, shape: Shape, host: number, policy: PlacementPolicy): boolean {
  const { topology } = room;
  const end = topology.nodeOfHost[host + 1] as number;
  const first = topology.nodeOfHost[host] as number;
  if (shape.whole === null) return end - first >= shape.cells.length;
  for (let node = first; node < end; node++) {
    if (fitsNode(room, demandOn(topology, shape.whole, node), node)) return true;
  }
  return shape.maySplit && end - first > 1 && sumsSuffice(room, shape, host, policy);
}

/**
 * Ways in which the host can take the VM: each node that takes it whole, then several together. `all`: also those that differ
 * only in what they leave for others.
 */
export function* seatingsOn(
  room: Room,
  shape: Shape,
  host: number,
  policy: PlacementPolicy,
  all = false,
): Generator<Seated> {
  const { topology } = room;
  const seated = (seating: Seating): Seated => ({ seating, held: heldBy(shape, seating, topology, policy) });
  if (shape.whole !== null) {
    const end = topology.nodeOfHost[host + 1] as number;
    for (let node = topology.nodeOfHost[host] as number; node < end; node++) {
      if (!fitsNode(room, demandOn(topology, shape.whole, node), node)) continue;
      for (const seating of wholesOn(room, shape, host, node, all)) yield seated(seating);
    }
  }
  for (const seating of spreadsOn(room, shape, host, policy, all)) {
    if (shape.whole === null || seating.seats.length > 1) yield seated(seating);
    if (!all) return;
  }
}
