// SPDX-License-Identifier: Apache-2.0
import { auditAlarms } from '../audit/alarms.ts';
import { spoolAlarms, storeAlarms } from '../budget/alarms.ts';
import { storeBehind, vmsWithoutRecord } from '../cluster/alarms.ts';
import { hostAlarms } from '../host/alarms.ts';
import { volumeAlarms } from '../volume/alarms.ts';
import type { AlarmSource } from './alarm.ts';

/** Every condition that is an alarm: a source that is not in this list is never asked. Each lives with its noun. */
export const ALARM_SOURCES: readonly AlarmSource[] = [
  storeBehind,
  vmsWithoutRecord,
  hostAlarms,
  auditAlarms,
  storeAlarms,
  spoolAlarms,
  volumeAlarms,
];
