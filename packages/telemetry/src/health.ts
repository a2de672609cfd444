// SPDX-License-Identifier: Apache-2.0
import type { Pulse } from '@busbar/core/pulse';

export interface Check {
  readonly name: string;
  /** What is wrong, for people; empty when nothing is. */
  readonly problem: string;
}

/** What a daemon says of itself to whoever asks `/healthz` (restart me when not) and `/readyz` (send me work when so). */
export interface HealthSource {
  live(): readonly Check[];
  /** Ends within READY_DEADLINE_MS. */
  ready(): Promise<readonly Check[]>;
}

/** Below the 5 s that probes usually wait. */
export const READY_DEADLINE_MS = 2_500;

/** A loop that has not gone round for longer than `limitMs` hangs. One that is not meant to run is no problem. */
export function loopCheck(name: string, pulse: Pulse, limitMs: number): Check {
  const ageMs = pulse.ageMs();
  const hangs = ageMs !== null && ageMs > limitMs;
  return { name, problem: hangs ? `has not gone round for ${Math.round(ageMs / 1000)} s` : '' };
}
