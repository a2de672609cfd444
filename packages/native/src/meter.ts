// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { type Metrics, outcomeOf } from '@busbar/core/metrics';
import { NATIVE_METRICS as M } from './metrics.ts';

/** What is measured of one call: when it was offered, and when it went to the child; null while it waits. */
export interface Timing {
  readonly offeredMs: number;
  sentMs: number | null;
}

/** What one NativeHost reads when it is asked, and what it tells. */
export interface NativeMeter {
  offered(): Timing;
  sent(timing: Timing, lane: string): void;
  /** `error` is null when the call was answered well. */
  ended(timing: Timing, lane: string, method: string, error: unknown): void;
}

export function nativeMeter(
  library: string,
  metrics: Metrics,
  clock: Clock,
  now: {
    readonly lanes: () => Iterable<readonly [lane: string, waiting: number]>;
    readonly running: () => number;
    readonly starts: () => number;
  },
): NativeMeter {
  const calls = metrics.histogram(M.callSeconds);
  const waits = metrics.histogram(M.waitSeconds);
  const refused = metrics.counter(M.refused);
  metrics.read(M.waiting, () => [...now.lanes()].map(([lane, value]) => ({ labels: { library, lane }, value })));
  metrics.read(M.running, () => [{ labels: { library }, value: now.running() }]);
  metrics.read(M.starts, () => [{ labels: { library }, value: now.starts() }]);
  return {
    offered: () => ({ offeredMs: clock.nowMs(), sentMs: null }),
    sent(timing, lane) {
      timing.sentMs = clock.nowMs();
      waits.observe({ library, lane }, (timing.sentMs - timing.offeredMs) / 1000);
    },
    ended(timing, lane, method, error) {
      if (timing.sentMs === null) refused.add({ library, lane });
      else calls.observe({ library, method, outcome: outcomeOf(error) }, (clock.nowMs() - timing.sentMs) / 1000);
    },
  };
}
