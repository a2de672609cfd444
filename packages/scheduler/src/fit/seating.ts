// SPDX-License-Identifier: Apache-2.0
import { DEVICES } from '../capacity/dimensions.ts';
import type { Topology } from '../capacity/topology.ts';
import type { PlacementPolicy } from '../model.ts';
import { cellDemand, type Demand, type Shape } from '../shape/shape.ts';
import { demandOn, type Room } from './room.ts';

/** Which NUMA node serves which part of a VM, before CPUs are chosen. Nodes are numbered through the cluster. */
export interface Seat {
  readonly node: number;
  readonly vcpus: number;
  readonly memoryMib: number;
}

export interface Seating {
  readonly seats: readonly Seat[];
  readonly devices: readonly SeatedDevices[];
}

export interface SeatedDevices {
  readonly classIndex: number;
  readonly count: number;
  readonly node: number;
  /** Of those of which the platform does not say where they are; counted at the host's first node. */
  readonly loose: boolean;
  /** Had to be on a node of the VM. */
  readonly bound: boolean;
}

function deviceAt(topology: Topology, node: number, classIndex: number): number {
  return node * topology.stride + DEVICES + classIndex;
}

function looseAt(topology: Topology, host: number, classIndex: number): number {
  return deviceAt(topology, topology.nodeOfHost[host] ?? 0, topology.deviceClasses.length + classIndex);
}

/** Adds the devices that may be anywhere: near the VM first if that is preferred, else where most are left. */
export function withDevices(
  room: Room,
  shape: Shape,
  host: number,
  seats: readonly Seat[],
  bound: readonly SeatedDevices[],
): Seating | null {
  if (shape.looseDevices.length === 0) return { seats, devices: bound };
  const { topology, amounts } = room;
  const devices = [...bound];
  const near = new Set(seats.map(({ node }) => node));
  const first = topology.nodeOfHost[host] ?? 0;
  const sources = [
    { node: first, loose: true },
    ...Array.from({ length: (topology.nodeOfHost[host + 1] ?? 0) - first }, (_, i) => ({
      node: first + i,
      loose: false,
      bound: true,
    })),
  ];
  for (const request of shape.looseDevices) {
    const left = ({ node, loose }: { readonly node: number; readonly loose: boolean }) =>
      (amounts[loose ? looseAt(topology, host, request.classIndex) : deviceAt(topology, node, request.classIndex)] ??
        0) -
      devices.reduce(
        (sum, each) =>
          sum + (each.node === node && each.loose === loose && each.classIndex === request.classIndex ? each.count : 0),
        0,
      );
    const isNear = ({ node, loose }: { readonly node: number; readonly loose: boolean }) => !loose && near.has(node);
    const sorted = sources.toSorted(
      (a, b) => (request.near ? Number(isNear(b)) - Number(isNear(a)) : 0) || left(b) - left(a) || a.node - b.node,
    );
    let wanted = request.count;
    for (const source of sorted) {
      const count = Math.min(wanted, Math.max(0, left(source)));
      if (count > 0) devices.push({ classIndex: request.classIndex, count, ...source, bound: false });
      wanted -= count;
    }
    if (wanted > 0) return null;
  }
  return { seats, devices };
}

/** What a seating takes of each node, for counting. */
export function heldBy(
  shape: Shape,
  { seats, devices }: Seating,
  topology: Topology,
  policy: PlacementPolicy,
): readonly Held[] {
  const [only] = seats;
  const whole = seats.length === 1 && only !== undefined && shape.whole !== null;
  const held: Held[] = whole
    ? [{ node: only.node, demand: demandOn(topology, shape.whole, only.node) }]
    : seats.map((seat, index) => ({
        node: seat.node,
        demand: demandOn(
          topology,
          cellDemand(shape.needs, seat, { first: index === 0, devices: [], policy }),
          seat.node,
        ),
      }));
  for (const { classIndex, count, node, loose, bound } of devices) {
    // In a whole VM's demand already.
    if (whole && bound) continue;
    const dimension = DEVICES + classIndex + (loose ? topology.deviceClasses.length : 0);
    held.push({ node, demand: { dimensions: Int32Array.of(dimension), amounts: Int32Array.of(count) } });
  }
  return held;
}

export interface Seated {
  readonly seating: Seating;
  readonly held: readonly Held[];
}

export interface Held {
  readonly node: number;
  readonly demand: Demand;
}
