// SPDX-License-Identifier: Apache-2.0
/**
 * What a controller does about leadership at this moment. Pure: leadership.ts builds the view,
 * carries out the decision and looks again.
 *
 * Races and what stops them: two candidates at once — the transaction that creates the key compares
 * that it does not exist; a leader that stalled — its term ends by its own monotonic clock before the
 * store can give the key away, and its writes carry the fence; a campaign whose outcome is unknown —
 * its lease is revoked and never renewed, so that the key cannot stay even if it was written.
 */
export interface LeadershipTimings {
  /**
   * Lease of the leader key. etcd's floor is 1.5 election timeouts in whole seconds: 2 s by default, 3 s
   * where the election timeout is 2 s. 3 s: a leader
   * survives two lost renewals or the death of the etcd member that it talks to; a dead leader's key
   * goes 3 to 3.5 s after its last renewal (etcd looks every 500 ms). When etcd itself must elect, a
   * leader may lose its term and win the next at once: cheaper than a longer TTL on every host failure.
   */
  readonly ttlMs: number;
  readonly renewEveryMs: number;
  /** A renewal unanswered for so long is followed by another one (by then the store has found another member). */
  readonly renewPatienceMs: number;
  readonly renewRetryMs: number;
  /** A candidate reads the key this often even if its watch says nothing. */
  readonly observeEveryMs: number;
}

export const DEFAULT_TIMINGS: LeadershipTimings = {
  ttlMs: 3_000,
  renewEveryMs: 800,
  renewPatienceMs: 600,
  renewRetryMs: 200,
  observeEveryMs: 2_000,
};

export interface TermView {
  readonly validUntilMs: number;
  readonly renewalSentMs: number;
  readonly renewal: 'pending' | 'acknowledged' | 'failed';
  /** The store says that the lease or our key is gone. */
  readonly lost: boolean;
}

export interface View {
  readonly nowMs: number;
  readonly term: TermView | null;
  readonly key: 'unknown' | 'free' | 'held';
  /** When the key was last read or a reading was last tried. */
  readonly observedMs: number;
  /** No campaign before this: stood down, or backing off. */
  readonly notBeforeMs: number;
}

export type Decision =
  | { readonly do: 'step-down'; readonly why: 'expired' | 'lost' }
  | { readonly do: 'renew' }
  | { readonly do: 'observe' }
  | { readonly do: 'campaign' }
  | { readonly do: 'wait'; readonly untilMs: number };

export function decide(view: View, timings: LeadershipTimings): Decision {
  const { nowMs, term } = view;
  if (term !== null) {
    if (term.lost) return { do: 'step-down', why: 'lost' };
    if (nowMs >= term.validUntilMs) return { do: 'step-down', why: 'expired' };
    const renewAtMs = term.renewalSentMs + renewalGapMs(term.renewal, timings);
    if (nowMs >= renewAtMs) return { do: 'renew' };
    return { do: 'wait', untilMs: Math.min(renewAtMs, term.validUntilMs) };
  }
  const observeAtMs = view.observedMs + timings.observeEveryMs;
  if (view.key === 'free' && nowMs >= view.notBeforeMs) return { do: 'campaign' };
  if (nowMs >= observeAtMs) return { do: 'observe' };
  const mayCampaign = view.key === 'free' ? view.notBeforeMs : Number.POSITIVE_INFINITY;
  return { do: 'wait', untilMs: Math.min(observeAtMs, mayCampaign) };
}

function renewalGapMs(renewal: TermView['renewal'], timings: LeadershipTimings): number {
  switch (renewal) {
    case 'acknowledged':
      return timings.renewEveryMs;
    case 'pending':
      return timings.renewPatienceMs;
    case 'failed':
      return timings.renewRetryMs;
  }
}
