// SPDX-License-Identifier: Apache-2.0
import type { Topology } from '../capacity/topology.ts';
import type { PlacementPolicy } from '../model.ts';
import type { Shape } from '../shape/shape.ts';
import { demandOn, fitsNode, type Room } from './room.ts';
import { heldBy, type Seated, type Seating, withDevices } from './seating.ts';
import { seatSpread, sumsSuffice } from './spread.ts';

/** All of the VM on one node. */
export function seatWhole(room: Room, shape: Shape, host: number, node: number): Seating | null {
  const seats = [{ node, vcpus: shape.needs.vcpus, memoryMib: shape.needs.memoryMib }];
  return withDevices(
    room,
    shape,
    host,
    seats,
    shape.boundDevices.map((each) => ({ ...each, node, loose: false, bound: true })),
  );
}

/** Whether a VM that no node takes whole may be on several. */
export function mayBeSpread(shape: Shape, topology: Topology): boolean {
  return shape.cells.length > 0 || (shape.maySplit && topology.nodeIds.length > topology.hosts.length);
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

/** Every way in which the host can take the VM: each node that takes it whole, or else one spread over several. */
export function* seatingsOn(room: Room, shape: Shape, host: number, policy: PlacementPolicy): Generator<Seated> {
  const { topology } = room;
  let whole = false;
  if (shape.whole !== null) {
    const end = topology.nodeOfHost[host + 1] as number;
    for (let node = topology.nodeOfHost[host] as number; node < end; node++) {
      if (!fitsNode(room, demandOn(topology, shape.whole, node), node)) continue;
      const seating = seatWhole(room, shape, host, node);
      if (seating === null) continue;
      whole = true;
      yield { seating, held: heldBy(shape, seating, topology, policy) };
    }
  }
  if (whole) return;
  const seating = seatSpread(room, shape, host, policy);
  if (seating !== null) yield { seating, held: heldBy(shape, seating, topology, policy) };
}
