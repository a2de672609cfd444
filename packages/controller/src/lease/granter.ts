// SPDX-License-Identifier: Apache-2.0

/**
 * Which boot of a host a controller answers heartbeats of. Pure.
 *
 * Whoever has a host's disk has its certificate: a spare that was imaged and booted beside the original is that host as far
 * as TLS can tell. So a lease is granted to a host AND its boot, and never to two boots of a host at once:
 *
 *  1. a granter grants one boot of a host, and another one only when the TTL and the margin have passed since it last heard
 *     the former (it never granted later than it heard);
 *  2. a granter that was just started knows of no grants. Its former self may have granted anybody until that moment: it
 *     grants nobody before its start plus the TTL and the margin.
 *
 * Why no two boots ever hold a lease at the same moment. A lease that lives at instant t rests on a majority of granters,
 * each of which granted that boot (lease.ts of the agent: for each, t is less than the TTL less 10 % after the *send* of
 * what it acknowledged, hence after the grant). Two leases of two boots at t rest on two majorities, which share a granter.
 * It granted both, say b1 at g1 and then b2 at g2, without a start in between or with one. Without: g2 is at least
 * TTL + margin after g1, by rule 1. With: g2 is at least TTL + margin after the start, which is after g1, by rule 2. In
 * both cases t >= g2, as b2's lease cannot rest on a grant that was not yet given, so t is at least TTL + margin after g1 by
 * the granter's clock, and b1's part in its lease was worth 0.9 TTL by b1's: they cannot meet while the two clocks differ in
 * rate by less than 10 %, which is the only assumption about clocks. The boots' own clocks are never compared.
 *
 * Why a started granter does not take the boot id of host-status for granted, which would spare the wait: that record lags.
 * b2 may have been granted by this granter's former self and another one, while the record, for want of a leader, still
 * said b1; b1, granted at once by this one and by a third that never heard b2, would hold a lease beside b2.
 *
 * A boot is a boot id at an address: machines that were copied while they ran (a snapshot of a virtual machine's memory)
 * share the boot id, but not the address at the same time.
 */
export interface Boot {
  readonly bootId: string;
  /** Of the machine, as the connection shows it; without the port. */
  readonly address: string;
}

export interface LeaseTimings {
  readonly heartbeatIntervalMs: number;
  readonly leaseTtlMs: number;
}

/** The design's defaults: four heartbeats a second, a lease of ten of them. */
export const DEFAULT_LEASE: LeaseTimings = { heartbeatIntervalMs: 250, leaseTtlMs: 2_500 };

/** By how much a host's clock may run slower than ours; the host takes as much off the TTL for one that runs faster. */
const MARGIN = 0.1;

/** After a grant, when the lease that rests on it has certainly ended. */
export function certainEndMs(leaseTtlMs: number): number {
  return leaseTtlMs * (1 + MARGIN);
}

/**
 * A boot that was not heard for this long is not there: who is refused asks again each second, so it is sixty missed
 * questions, and no machine that is only booting anew comes back under its former boot id.
 */
export const GONE_AFTER_MS = 60_000;

/**
 * Two boots are there at once when each was heard at least this long after the other one first was. One that boots anew is
 * never heard again after it; what may arrive out of order, because this process stood still, arrives within moments.
 */
const BESIDE_MS = 2_500;

/** Who listened this long has heard all who are there: agents dial at least each second, and are slow for some when busy. */
export const LISTENED_MS = 10_000;

/** Boots of one host that are told apart; of more than this the oldest is forgotten. */
const BOOTS_MAX = 8;

export type Verdict =
  | { readonly kind: 'granted' }
  /** This boot is the one, but nothing is granted yet: this granter was just started. */
  | { readonly kind: 'waits'; readonly untilMs: number }
  /** Another boot of the host may still hold a lease. */
  | { readonly kind: 'refused'; readonly admitted: Boot; readonly untilMs: number };

interface Heard {
  readonly boot: Boot;
  firstMs: number;
  lastMs: number;
}

interface HostGrants {
  admitted: Boot;
  heardMs: number;
  readonly boots: Heard[];
}

export class Granter {
  readonly #startedAtMs: number;
  readonly #endMs: number;
  readonly #hosts = new Map<string, HostGrants>();

  constructor(options: { readonly startedAtMs: number; readonly leaseTtlMs: number }) {
    this.#startedAtMs = options.startedAtMs;
    this.#endMs = certainEndMs(options.leaseTtlMs);
  }

  /** A sign of life, by a heartbeat or because a session is asked for. `granted` may be told to the host as an acknowledgement. */
  hear(host: string, boot: Boot, nowMs: number): Verdict {
    let grants = this.#hosts.get(host);
    if (grants === undefined) {
      grants = { admitted: boot, heardMs: nowMs, boots: [] };
      this.#hosts.set(host, grants);
    }
    note(grants.boots, boot, nowMs);
    if (!sameBoot(grants.admitted, boot)) {
      const untilMs = grants.heardMs + this.#endMs;
      if (nowMs < untilMs) return { kind: 'refused', admitted: grants.admitted, untilMs };
      grants.admitted = boot;
    }
    grants.heardMs = nowMs;
    const opensAtMs = this.#startedAtMs + this.#endMs;
    return nowMs < opensAtMs ? { kind: 'waits', untilMs: opensAtMs } : { kind: 'granted' };
  }

  /** Whose heartbeats are answered; null when the host was never heard. */
  admitted(host: string): Boot | null {
    return this.#hosts.get(host)?.admitted ?? null;
  }

  heardMs(host: string): number {
    return this.#hosts.get(host)?.heardMs ?? Number.NEGATIVE_INFINITY;
  }

  /** The boots of a host that are there at the same time; empty when it is one machine, as it should be. */
  beside(host: string, nowMs: number): readonly Boot[] {
    const boots = (this.#hosts.get(host)?.boots ?? []).filter(({ lastMs }) => nowMs - lastMs < GONE_AFTER_MS);
    const overlap = (a: Heard, b: Heard) => Math.min(a.lastMs, b.lastMs) - Math.max(a.firstMs, b.firstMs) >= BESIDE_MS;
    return boots.filter((a) => boots.some((b) => a !== b && overlap(a, b))).map(({ boot }) => boot);
  }

  /** Whether another machine with the host's certificate would have been heard by now. */
  hasListened(nowMs: number): boolean {
    return nowMs - this.#startedAtMs >= LISTENED_MS;
  }
}

export function describeBoot({ bootId, address }: Boot): string {
  return `boot ${bootId} at ${address}`;
}

export function sameBoot(a: Boot, b: Boot): boolean {
  return a.bootId === b.bootId && a.address === b.address;
}

function note(boots: Heard[], boot: Boot, nowMs: number): void {
  const known = boots.find((each) => sameBoot(each.boot, boot));
  if (known === undefined) {
    boots.push({ boot, firstMs: nowMs, lastMs: nowMs });
    if (boots.length > BOOTS_MAX) boots.splice(boots.indexOf(oldest(boots)), 1);
    return;
  }
  // It was away for so long that it begins anew.
  if (nowMs - known.lastMs >= GONE_AFTER_MS) known.firstMs = nowMs;
  known.lastMs = nowMs;
}

function oldest(boots: readonly Heard[]): Heard {
  return boots.reduce((a, b) => (b.lastMs < a.lastMs ? b : a));
}
