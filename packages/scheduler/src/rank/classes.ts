// SPDX-License-Identifier: Apache-2.0
import type { Room } from '../fit/room.ts';
import { mayBeSpread, seatWhole } from '../fit/seat.ts';
import { seatSpread } from '../fit/spread.ts';
import type { PlacementPolicy, Refusal, Vm } from '../model.ts';
import { type Shape, shapeKey, shapeOf } from '../shape/shape.ts';
import { type Costs, WEIGHTS } from './cost.ts';
import { type Changes, Ranked } from './ranked.ts';
import type { Ranking } from './ranking.ts';

/** What is known of all VMs of one shape. */
export interface ShapeClass {
  readonly shape: Shape;
  /** There may be hosts that take it on several NUMA nodes only. */
  readonly spreads: boolean;
  /** What was said last time to VMs with HA and to those without, which have less to ask, and how many releases there had been. */
  readonly refused: Record<'ha' | 'plain', { readonly releases: number; readonly refusal: Refusal } | null>;
}

interface Rankings {
  /** Hosts with a NUMA node that takes the VM whole. */
  readonly whole: Ranked;
  /** Hosts that take it on several nodes. */
  readonly spread: Ranked;
}

/** Rankings of that many shapes are kept: two numbers a host each. Beyond, the one that was not used for longest goes. */
const RANKINGS_MAX = 256;

/** The shapes that were asked for, and the hosts ranked for each. */
export class Classes {
  readonly #room: Room;
  readonly #costs: Costs;
  readonly #changes: Changes;
  readonly #policy: PlacementPolicy;
  readonly #classes = new Map<string, ShapeClass>();
  #lastVm: Vm | null = null;
  #last: ShapeClass | null = null;
  /** In the order of their last use. */
  readonly #rankings = new Map<ShapeClass, Rankings>();
  /** Hosts that admit VMs, by what VMs ask of hosts as such. */
  readonly #admits = new Map<string, Uint8Array>();

  constructor(room: Room, costs: Costs, changes: Changes, policy: PlacementPolicy) {
    this.#room = room;
    this.#costs = costs;
    this.#changes = changes;
    this.#policy = policy;
  }

  of(vm: Vm): ShapeClass {
    // One decision asks several times.
    if (vm !== this.#lastVm) [this.#lastVm, this.#last] = [vm, this.#find(vm)];
    return this.#last as ShapeClass;
  }

  #find(vm: Vm): ShapeClass {
    const key = shapeKey(vm);
    const known = this.#classes.get(key);
    if (known !== undefined) return known;
    const { topology } = this.#room;
    const shape = shapeOf(vm, this.#classes.size, {
      policy: this.#policy,
      deviceClasses: topology.deviceClasses,
      admits: (unknownDevice) => this.#admittedBy(vm, unknownDevice),
    });
    const cls: ShapeClass = { shape, spreads: mayBeSpread(shape, topology), refused: { ha: null, plain: null } };
    this.#classes.set(key, cls);
    return cls;
  }

  /** Hosts with a NUMA node that takes the VM whole, best first. */
  whole(cls: ShapeClass): Ranking {
    return this.#rankingsOf(cls).whole.upToDate();
  }

  /** Hosts that take it on several nodes, best first. */
  spread(cls: ShapeClass): Ranking {
    return this.#rankingsOf(cls).spread.upToDate();
  }

  #rankingsOf(cls: ShapeClass): Rankings {
    const known = this.#rankings.get(cls);
    // Moving to the end costs; with few shapes nobody is ever the oldest.
    if (known !== undefined && this.#rankings.size < RANKINGS_MAX) return known;
    if (known !== undefined) this.#rankings.delete(cls);
    const [oldest] = this.#rankings.keys();
    if (this.#rankings.size >= RANKINGS_MAX && oldest !== undefined) this.#rankings.delete(oldest);
    const rankings = known ?? this.#rank(cls.shape);
    this.#rankings.set(cls, rankings);
    return rankings;
  }

  #rank(shape: Shape): Rankings {
    const { topology } = this.#room;
    const nodeCosts = new Float64Array(topology.nodeIds.length);
    const admitted = (costOf: (host: number) => number) => (host: number) =>
      shape.admits[host] === 1 ? costOf(host) : Number.POSITIVE_INFINITY;
    return {
      whole: new Ranked(
        this.#room,
        this.#changes,
        (node, like) => {
          nodeCosts[node] = like >= 0 ? (nodeCosts[like] as number) : this.#costs.whole(shape, node);
        },
        admitted((host) => this.#wholeCost(shape, host, nodeCosts)),
        this.#policy.prefer === 'pack' || topology.nodeIds.length === topology.hosts.length,
      ),
      spread: new Ranked(
        this.#room,
        this.#changes,
        () => {},
        admitted((host) => this.#spreadCost(shape, host)),
      ),
    };
  }

  #wholeCost(shape: Shape, host: number, nodeCosts: Float64Array): number {
    const { nodeOfHost } = this.#room.topology;
    const end = nodeOfHost[host + 1] as number;
    let least = Number.POSITIVE_INFINITY;
    let best = -1;
    for (let node = nodeOfHost[host] as number; node < end; node++) {
      const cost = nodeCosts[node] as number;
      if (cost < least) [least, best] = [cost, node];
    }
    if (best < 0 || shape.looseDevices.length === 0) return least;
    return seatWhole(this.#room, shape, host, best) === null ? Number.POSITIVE_INFINITY : least;
  }

  #spreadCost(shape: Shape, host: number): number {
    const seating = seatSpread(this.#room, shape, host, this.#policy);
    if (seating === null) return Number.POSITIVE_INFINITY;
    // Explicit cells are no split: the guest asked for them.
    const avoidable = shape.cells.length === 0 ? seating.seats.length - 1 : 0;
    return seating.seats.reduce((sum, seat) => sum + this.#costs.leaning(seat.node), WEIGHTS.splitNuma * avoidable);
  }

  #admittedBy(vm: Vm, unknownDevice: string | null): Uint8Array {
    const selector = Object.entries(vm.hostSelector);
    const key = JSON.stringify([
      selector.map(([name, value]) => `${name}=${value}`).toSorted(),
      vm.networks.map(({ id }) => id).toSorted(),
      unknownDevice !== null,
    ]);
    const known = this.#admits.get(key);
    if (known !== undefined) return known;
    const admits = Uint8Array.from(this.#room.topology.hosts, (host) => {
      const right =
        host.notSchedulable === '' &&
        unknownDevice === null &&
        selector.every(([name, value]) => host.labels[name] === value) &&
        vm.networks.every(({ id }) => host.networks.has(id));
      return right ? 1 : 0;
    });
    this.#admits.set(key, admits);
    return admits;
  }
}
