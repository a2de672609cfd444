// SPDX-License-Identifier: Apache-2.0
/**
 * Hosts in the order of their cost for one shape: a tournament tree, so that a changed host costs a climb and the best one
 * nothing to find. Equal costs are decided by the lower number, so that the answer never depends on history.
 */
export class Ranking {
  readonly costs: Float64Array;
  /** winner[1] is the best; leaves begin at #leaves. */
  readonly #winner: Int32Array;
  readonly #leaves: number;

  constructor(hosts: number) {
    this.costs = new Float64Array(hosts).fill(Number.POSITIVE_INFINITY);
    this.#leaves = 2 ** Math.ceil(Math.log2(Math.max(1, hosts)));
    this.#winner = new Int32Array(2 * this.#leaves).fill(-1);
    for (let host = 0; host < hosts; host++) this.#winner[this.#leaves + host] = host;
    for (let at = this.#leaves - 1; at > 0; at--) this.#play(at);
  }

  /** -1 when no host fits. */
  best(): number {
    const winner = this.#winner[1] as number;
    return winner >= 0 && this.costs[winner] !== Number.POSITIVE_INFINITY ? winner : -1;
  }

  /** The best host that passes; -1 when there is none. */
  first(may: (host: number) => boolean): number {
    const best = this.best();
    // Nearly always; the rest is worth a generator.
    if (best < 0 || may(best)) return best;
    for (const host of this.inOrder()) if (host !== best && may(host)) return host;
    return -1;
  }

  set(host: number, cost: number): void {
    if (this.costs[host] === cost) return;
    this.costs[host] = cost;
    for (let at = (this.#leaves + host) >> 1; at > 0; at >>= 1) this.#play(at);
  }

  /** All costs are new. */
  rebuild(costOf: (host: number) => number): void {
    for (let host = 0; host < this.costs.length; host++) this.costs[host] = costOf(host);
    for (let at = this.#leaves - 1; at > 0; at--) this.#play(at);
  }

  /** Hosts that fit, best first, until the caller stops asking. The tree is whole again afterwards. */
  *inOrder(): Generator<number> {
    const aside: (readonly [number, number])[] = [];
    try {
      for (let host = this.best(); host >= 0; host = this.best()) {
        yield host;
        aside.push([host, this.costs[host] as number]);
        this.set(host, Number.POSITIVE_INFINITY);
      }
    } finally {
      for (const [host, cost] of aside) this.set(host, cost);
    }
  }

  #play(at: number): void {
    const a = this.#winner[2 * at] as number;
    const b = this.#winner[2 * at + 1] as number;
    if (b < 0) this.#winner[at] = a;
    else if (a < 0) this.#winner[at] = b;
    else this.#winner[at] = (this.costs[b] as number) < (this.costs[a] as number) ? b : a;
  }
}
