// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { type Metrics, timed } from '@busbar/core/metrics';
import { CONTROLLER_METRICS } from '../telemetry/metrics.ts';

export interface RoundMeter {
  time<T>(
    part: 'all' | 'store' | 'hosts' | 'vms' | 'publish' | 'sagas' | 'alarms',
    work: () => T | Promise<T>,
  ): Promise<T>;
  failed(): void;
}

export function roundMeter(metrics: Metrics, clock: Clock): RoundMeter {
  const seconds = metrics.histogram(CONTROLLER_METRICS.roundSeconds);
  const failures = metrics.counter(CONTROLLER_METRICS.roundFailures);
  return {
    time: (part, work) =>
      timed(
        clock,
        async () => work(),
        (took) => seconds.observe({ part }, took),
      ),
    failed: () => failures.add({}),
  };
}
