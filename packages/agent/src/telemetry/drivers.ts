// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { type Metrics, measured, outcomeOf } from '@busbar/core/metrics';
import type { HostDriver } from '../driver/host-driver.ts';
import type { MemoryStore } from '../reconcile/memory.ts';
import { AGENT_METRICS } from './metrics.ts';

/** Not the streams: a console lasts as long as somebody looks at it. */
const CALLS = [
  'inventory',
  'listDomains',
  'haveProcess',
  'startDomain',
  'shutdownDomain',
  'destroyDomain',
  'setLinks',
  'growDisk',
] as const;

export function measuredDriver(driver: HostDriver, metrics: Metrics, clock: Clock): HostDriver {
  const seconds = metrics.histogram(AGENT_METRICS.hostDriverSeconds);
  return measured(driver, CALLS, clock, (call, took, error) =>
    seconds.observe({ call, outcome: outcomeOf(error) }, took),
  );
}

export function measuredMemory(store: MemoryStore, metrics: Metrics, clock: Clock): MemoryStore {
  const seconds = metrics.histogram(AGENT_METRICS.memorySeconds);
  return measured(store, ['save'], clock, (_call, took, error) => seconds.observe({ outcome: outcomeOf(error) }, took));
}
