// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';

/**
 * The host's right to run VMs, by a majority of controllers and without etcd.
 *
 * A controller that acknowledged heartbeat n heard this host at some moment after n was sent, so the
 * send time, on this host's monotonic clock, is a safe lower bound: no clock but our own is used.
 * The lease ends at the newest instant T such that a majority of all *configured* controllers (not
 * of the connected ones) acknowledged heartbeats sent at or after T, plus the TTL.
 *
 * Why that is safe: to fence this host, the leader seals it with a majority of controllers, each of
 * which from then on acknowledges nothing and says when it last did. Two majorities share a
 * controller, so some sealed controller's last acknowledgement is at or after T, and T + TTL, which
 * the leader waits out, is at or after the end of our lease.
 *
 * Races and what stops them:
 * - An acknowledgement that arrives late, twice, out of order or with an invented number proves at
 *   most what was sent: the send time counts, never the time of arrival.
 * - Numbers restart with each session: a number is looked up in the session it came through. What a
 *   former session proved stays proven, because the controller did hear it.
 * - Clocks that run at different rates: we take 10 % off the TTL, the leader adds its margin.
 * - Controllers with different TTLs (settings being changed): each acknowledgement is worth the TTL
 *   of the controller that gave it, since that one's record is what a fence waits for.
 */
export class Lease {
  /** Per controller, until when its acknowledgements prove that it may not have given us up. */
  readonly #provenUntilMs = new Map<string, number>();
  readonly #majority: number;
  #expiresAtMs = Number.NEGATIVE_INFINITY;

  constructor(controllers: readonly string[]) {
    assert(controllers.length > 0, 'a cluster has at least one controller');
    for (const controller of controllers) this.#provenUntilMs.set(controller, Number.NEGATIVE_INFINITY);
    assert(this.#provenUntilMs.size === controllers.length, 'a controller that is listed twice would vote twice');
    this.#majority = Math.floor(controllers.length / 2) + 1;
  }

  /** Monotonic: never moves back. Negative infinity until a majority has acknowledged once. */
  expiresAtMs(): number {
    return this.#expiresAtMs;
  }

  openSession(controller: string): LeaseSession {
    assert(this.#provenUntilMs.has(controller), `"${controller}" is not a configured controller`);
    return new LeaseSession((provenUntilMs) => this.#prove(controller, provenUntilMs));
  }

  #prove(controller: string, provenUntilMs: number): void {
    if (provenUntilMs <= (this.#provenUntilMs.get(controller) ?? Number.NEGATIVE_INFINITY)) return;
    this.#provenUntilMs.set(controller, provenUntilMs);
    const newestFirst = [...this.#provenUntilMs.values()].sort((a, b) => b - a);
    this.#expiresAtMs = newestFirst[this.#majority - 1] ?? Number.NEGATIVE_INFINITY;
  }
}

/** Share of the TTL that we give away: the bound on how much faster a controller's clock may run than ours. */
const LEASE_MARGIN = 0.1;

/** Heartbeats whose acknowledgement is awaited: at 250 ms each this is 16 s, longer than any TTL makes sense for. */
const WINDOW = 64;

/** The heartbeats of one session with one controller. */
export class LeaseSession {
  readonly #prove: (provenUntilMs: number) => void;
  readonly #sent: { readonly number: bigint; readonly atMs: number }[] = [];
  #worthMs: number | undefined;

  constructor(prove: (provenUntilMs: number) => void) {
    this.#prove = prove;
  }

  /** The controller proved to be the configured one and knows the same controllers as we do. Nothing counts before. */
  verified(leaseTtlMs: number): void {
    this.#worthMs = leaseTtlMs * (1 - LEASE_MARGIN);
  }

  /** Call it at the moment of sending or before, never after. */
  sent(number: bigint, atMs: number): void {
    this.#sent.push({ number, atMs });
    if (this.#sent.length > WINDOW) this.#sent.shift();
  }

  /** When it was sent, if that told something new: this is what keeps a link from being suspect. Else null. */
  acknowledged(number: bigint): number | null {
    if (this.#worthMs === undefined) return null;
    const index = this.#sent.findIndex((heartbeat) => heartbeat.number === number);
    const heartbeat = this.#sent[index];
    if (heartbeat === undefined) return null;
    this.#sent.splice(0, index + 1);
    this.#prove(heartbeat.atMs + this.#worthMs);
    return heartbeat.atMs;
  }
}
