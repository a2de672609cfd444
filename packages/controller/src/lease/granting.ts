// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { type Boot, Granter, type Verdict } from './granter.ts';

/** What the granter of this controller knows of a host. */
export interface HostBoots {
  /** The boot whose heartbeats are answered; null when the host was never heard. */
  readonly admitted: Boot | null;
  /** Monotonic time at which that boot was last heard. */
  readonly heardMs: number;
  /** Machines that say at the same time that they are this host; empty when it is one. */
  readonly beside: readonly Boot[];
  /** Another machine with the host's certificate would have been heard by now. */
  readonly hasListened: boolean;
}

/** The one granter of a controller, wherever it runs. It alone decides which boot of a host counts. */
export interface Granting {
  /** A session asks to be let in. */
  claim(host: string, boot: Boot): Promise<Verdict>;
  /** A heartbeat that came through a session; `answer` may be called later. */
  beat(host: string, boot: Boot, answer: (verdict: Verdict) => void): void;
  seen(host: string): HostBoots;
}

/** In this thread: for tests and simulation. */
export function localGranting(deps: {
  readonly clock: Clock;
  readonly leaseTtlMs: number;
  /** [now] */
  readonly startedAtMs?: number;
}): Granting & { readonly hear: (host: string, boot: Boot) => Verdict } {
  const { clock, leaseTtlMs } = deps;
  const granter = new Granter({ startedAtMs: deps.startedAtMs ?? clock.nowMs(), leaseTtlMs });
  const hear = (host: string, boot: Boot) => granter.hear(host, boot, clock.nowMs());
  return {
    hear,
    claim: (host, boot) => Promise.resolve(hear(host, boot)),
    beat: (host, boot, answer) => answer(hear(host, boot)),
    seen: (host) => ({
      admitted: granter.admitted(host),
      heardMs: granter.heardMs(host),
      beside: granter.beside(host, clock.nowMs()),
      hasListened: granter.hasListened(clock.nowMs()),
    }),
  };
}
