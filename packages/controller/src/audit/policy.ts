// SPDX-License-Identifier: Apache-2.0
import type { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';

/** How much of the past is kept. The same on every controller: any may lead, and any may refuse. */
export interface AuditPolicy {
  /** Nothing that changed the cluster, and no console, goes sooner. */
  readonly keepDays: number;
  /** Nor a refused call or a dry run before this time. */
  readonly keepRefusedDays: number;
  /** Records of all sorts for which there is room. */
  readonly records: number;
}

/**
 * IEC 62443-2-1 leaves the time to the plant; three months is what sites without an archive ask for. A record is 0.6 KB in etcd
 * and 0.9 KB in the memory of each controller, 1.8 KB once somebody has read it: 40,000 of them are 23 MB, one hundredth of
 * etcd's quota, and 36 to 70 MB.
 */
export const AUDIT_POLICY: AuditPolicy = { keepDays: 90, keepRefusedDays: 30, records: 40_000 };

/** Sorts of records have places of their own, so that refusals push out neither changes nor what tells of consoles. */
export type AuditSort = 'changes' | 'consoles' | 'refusals';
export const AUDIT_SORTS: readonly AuditSort[] = ['changes', 'consoles', 'refusals'];
const PART: Readonly<Record<AuditSort, number>> = { changes: 0.8, consoles: 0.1, refusals: 0.1 };

export function sortOf(record: Pick<AuditRecord, 'changed' | 'reason' | 'validateOnly' | 'streamBeginId'>): AuditSort {
  if (record.changed) return 'changes';
  // Also the end of a console that was cut off: it says how long somebody looked.
  const isConsole = record.streamBeginId !== '' || (record.reason === '' && !record.validateOnly);
  return isConsole ? 'consoles' : 'refusals';
}

export function roomFor(policy: AuditPolicy, sort: AuditSort): number {
  return Math.floor(policy.records * PART[sort]);
}

const DAY_MS = 24 * 3_600_000;

/** Records of this sort that are older may go, once room is short. */
export function floorMs(policy: AuditPolicy, sort: AuditSort): number {
  return DAY_MS * (sort === 'refusals' ? policy.keepRefusedDays : policy.keepDays);
}

/** Below this there is an alarm, and shares begin to count. */
export const NEARLY_FULL = 0.75;
/** What is beyond its time goes while there is more than this: an alarm then means records that must not go. */
export const KEPT_FREELY = 0.7;

/**
 * What part of the room one caller may have, the less the fuller it is. Whoever takes less than a hundredth of it in three months
 * (320 changes) is never refused, whatever others do.
 */
export function shareAt(filled: number): number {
  if (filled < NEARLY_FULL) return 1;
  if (filled < 0.9) return 1 / 4;
  return filled < 1 ? 1 / 10 : 1 / 100;
}
