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

/** Adds the devices that may be anywhere: near the VM first if that is preferred, else where most are left. `all`: then in every other way. */
export function* withDevices(
  room: Room,
  shape: Shape,
  host: number,
  seats: readonly Seat[],
  bound: readonly SeatedDevices[],
  all: boolean,
): Generator<Seating> {
  if (shape.looseDevices.length === 0) {
    yield { seats, devices: bound };
    return;
  }
  const { topology, amounts } = room;
  const near = new Set(seats.map(({ node }) => node));
  const first = topology.nodeOfHost[host] ?? 0;
  const end = topology.nodeOfHost[host + 1] ?? 0;
  const sources: Source[] = [{ node: first, loose: true }];
  for (let node = first; node < end; node++) sources.push({ node, loose: false });
  const devices = [...bound];
  const step = function* (index: number): Generator<Seating> {
    const request = shape.looseDevices[index];
    if (request === undefined) {
      yield { seats, devices: [...devices] };
      return;
    }
    const { classIndex } = request;
    const left = ({ node, loose }: Source) =>
      (amounts[loose ? looseAt(topology, host, classIndex) : deviceAt(topology, node, classIndex)] ?? 0) -
      devices.reduce(
        (sum, each) =>
          sum + (each.node === node && each.loose === loose && each.classIndex === classIndex ? each.count : 0),
        0,
      );
    const isNear = ({ node, loose }: Source) => !loose && near.has(node);
    const sorted = sources
      .map((source) => ({ ...source, left: Math.max(0, left(source)), isNear: request.near && isNear(source) }))
      .toSorted((a, b) => Number(b.isNear) - Number(a.isNear) || b.left - a.left || a.node - b.node);
    const share = function* (from: number, wanted: number): Generator<Seating> {
      if (wanted === 0) {
        yield* step(index + 1);
        return;
      }
      const source = sorted[from];
      if (source === undefined) return;
      const most = Math.min(wanted, source.left);
      for (let count = most; count >= (all ? 0 : most); count--) {
        const { node, loose } = source;
        if (count > 0) devices.push({ classIndex, count, node, loose, bound: false });
        yield* share(from + 1, wanted - count);
        if (count > 0) devices.pop();
      }
    };
    yield* share(0, request.count);
  };
  yield* step(0);
}

/** Where devices are counted. */
interface Source {
  readonly node: number;
  readonly loose: boolean;
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
