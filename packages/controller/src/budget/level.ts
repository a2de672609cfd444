// SPDX-License-Identifier: Apache-2.0
import type { StoreUsage } from '../store/cluster-store.ts';

/**
 * free: nothing to do. filling: history is kept short. nearly-full: only what saves the plant is written, with an alarm.
 * critical: a person must act.
 */
export type StoreLevel = 'free' | 'filling' | 'nearly-full' | 'critical';

/** Shares of etcd's quota, the worst first. */
const LEVELS: readonly (readonly [StoreLevel, { readonly inUse: number; readonly file: number }])[] = [
  ['critical', { inUse: 0.85, file: 0.98 }],
  // The file keeps the size that it once had, and its free pages are written over first: it is feared later than what is in use.
  ['nearly-full', { inUse: 0.7, file: 0.95 }],
  ['filling', { inUse: 0.35, file: 0.95 }],
];
export const NEARLY_FULL_PERCENT = 70;

export function storeLevel(usage: StoreUsage | null, quotaBytes: number): StoreLevel {
  if (usage === null) return 'free';
  const inUse = usage.inUseBytes / quotaBytes;
  const file = usage.fileBytes / quotaBytes;
  return LEVELS.find(([, from]) => inUse >= from.inUse || file >= from.file)?.[0] ?? 'free';
}

export function isNearlyFull(level: StoreLevel): boolean {
  return level === 'nearly-full' || level === 'critical';
}
