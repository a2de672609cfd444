// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { type Metrics, measured, outcomeOf } from '@busbar/core/metrics';
import type { StorageDriver } from '@busbar/storage/driver';
import { CONTROLLER_METRICS } from './metrics.ts';

const CALLS = [
  'capacity',
  'createVolume',
  'cloneVolume',
  'resizeVolume',
  'deleteVolume',
  'statVolume',
  'listVolumes',
  'importImage',
  'deleteImage',
  'statImage',
  'listImages',
  'grantAccess',
  'revokeAccess',
] as const;

export function measuredStorage(driver: StorageDriver, metrics: Metrics, clock: Clock): StorageDriver {
  const seconds = metrics.histogram(CONTROLLER_METRICS.storageSeconds);
  return measured(driver, CALLS, clock, (call, took, error) =>
    seconds.observe({ call, outcome: outcomeOf(error) }, took),
  );
}
