// SPDX-License-Identifier: Apache-2.0

/**
 * How long the leader rests between two rounds. Every change wakes it, and a round looks at everything: under a storm of changes
 * it would do nothing else, in the process that also answers API calls and heartbeats. So rounds may take half of the
 * time at most. What counts is the time beyond a credit, so that the few rounds of a single VM's start never rest.
 */
export interface Pace {
  /** Milliseconds to rest after a round that took from `beganMs` to `endedMs`. */
  rest(beganMs: number, endedMs: number): number;
}

/** The rounds of one VM's start take some 30 ms together; the start storm of a host that died deserves a head start. */
const CREDIT_MS = 250;
/** An outlier (a store that did not answer) must not make the leader sleep. */
const REST_MAX_MS = 250;

export function newPace(): Pace {
  let spentMs = 0;
  let lastEndMs = Number.NEGATIVE_INFINITY;
  return {
    rest(beganMs, endedMs) {
      spentMs = Math.max(0, spentMs - (beganMs - lastEndMs)) + (endedMs - beganMs);
      lastEndMs = endedMs;
      const restMs = Math.min(Math.max(0, spentMs - CREDIT_MS), REST_MAX_MS);
      if (restMs === REST_MAX_MS) spentMs = CREDIT_MS + REST_MAX_MS;
      return restMs;
    },
  };
}
