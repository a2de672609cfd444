// SPDX-License-Identifier: Apache-2.0
import type { Room } from '../fit/room.ts';
import { Ranking } from './ranking.ts';

/** NUMA nodes that changed, in the order of the changes. Each ranking reads on from where it stopped. */
export class Changes {
  readonly #keep: number;
  #log: number[] = [];
  #before = 0;
  /** All that was known is void (other weights): nobody may read on. */
  #voidUpTo = 0;
  /** Position of the last change of each node: earlier ones need not be looked at. */
  readonly #lastOf: Float64Array;

  constructor(nodes: number) {
    // A ranking further behind is built anew, which is no more work.
    this.#keep = 4 * nodes + 64;
    this.#lastOf = new Float64Array(nodes).fill(-1);
  }

  get position(): number {
    return this.#before + this.#log.length;
  }

  note(node: number): void {
    this.#lastOf[node] = this.position;
    this.#log.push(node);
    if (this.#log.length < 2 * this.#keep) return;
    this.#before += this.#log.length - this.#keep;
    this.#log = this.#log.slice(-this.#keep);
  }

  voidAll(): void {
    this.note(0);
    this.#voidUpTo = this.position;
  }

  /** Calls back once for each node that changed since `position`, or returns false when that is not known any more. */
  since(position: number, visit: (node: number) => void): boolean {
    if (position < this.#before || position < this.#voidUpTo || this.position - position > this.#keep / 2) return false;
    for (let at = position - this.#before; at < this.#log.length; at++) {
      const node = this.#log[at] as number;
      if (this.#lastOf[node] === at + this.#before) visit(node);
    }
    return true;
  }
}

/** A ranking of hosts, brought up to date when it is looked at. */
export class Ranked {
  readonly #ranking: Ranking;
  readonly #room: Room;
  readonly #changes: Changes;
  readonly #update: (node: number, like: number) => void;
  readonly #costOf: (host: number) => number;
  readonly #isNoted: Uint8Array;
  /** What is kept about a node depends on that node alone. */
  readonly #alone: boolean;
  #position = -1;

  /**
   * `update`: what is kept about a node is to be found anew; it is the same as for the node `like`, unless that is -1.
   * `costOf`: of a host, from what is kept about its nodes.
   */
  constructor(
    room: Room,
    changes: Changes,
    update: (node: number, like: number) => void,
    costOf: (host: number) => number,
    alone = true,
  ) {
    this.#alone = alone;
    this.#ranking = new Ranking(room.topology.hosts.length);
    this.#room = room;
    this.#isNoted = new Uint8Array(room.topology.hosts.length);
    this.#changes = changes;
    this.#update = update;
    this.#costOf = costOf;
  }

  upToDate(): Ranking {
    const { hostOfNode, nodeIds } = this.#room.topology;
    const changed: number[] = [];
    const known = this.#changes.since(this.#position, (node) => {
      this.#update(node, -1);
      const host = hostOfNode[node] as number;
      if (this.#isNoted[host] === 1) return;
      this.#isNoted[host] = 1;
      changed.push(host);
    });
    // Once a host, however many of its nodes changed.
    for (const host of changed) {
      this.#isNoted[host] = 0;
      this.#ranking.set(host, this.#costOf(host));
    }
    if (!known) {
      // Most nodes of a young cluster are as empty as their neighbours.
      for (let node = 0; node < nodeIds.length; node++)
        this.#update(node, this.#alone && isLikeBefore(this.#room, node) ? node - 1 : -1);
      this.#ranking.rebuild(this.#costOf);
    }
    this.#position = this.#changes.position;
    return this.#ranking;
  }
}

/** Whether a node has exactly what the one before it has, and had when it was empty. */
function isLikeBefore({ topology, amounts }: Room, node: number): boolean {
  if (node === 0 || topology.kindOfNode[node] !== topology.kindOfNode[node - 1]) return false;
  const at = node * topology.stride;
  for (let i = 0; i < topology.stride; i++) if (amounts[at + i] !== amounts[at - topology.stride + i]) return false;
  return true;
}
