// SPDX-License-Identifier: Apache-2.0
import { replaceMisleading } from '@busbar/core/visible';

/** Values as people read them. Pure. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** 536870912n → "512MiB", 1610612736n → "1.5GiB": the way it is written in YAML. */
export function formatBytes(bytes: bigint | number): string {
  let value = Number(bytes);
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = value >= 100 || Number.isInteger(value) ? 0 : 1;
  return `${Number(value.toFixed(digits))}${UNITS[unit]}`;
}

/** As formatBytes, but so that reading it again gives the same number. */
export function exactBytes(bytes: bigint): string {
  let value = bytes;
  let unit = 0;
  while (value !== 0n && value % 1024n === 0n && unit < UNITS.length - 1) {
    value /= 1024n;
    unit++;
  }
  return `${value}${UNITS[unit]}`;
}

/** 60000 → "1min": the way it is written in YAML, exact. */
export function exactMs(ms: number): string {
  if (ms % 3_600_000 === 0 && ms > 0) return `${ms / 3_600_000}h`;
  if (ms % 60_000 === 0 && ms > 0) return `${ms / 60_000}min`;
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`;
}

/** "5s", "3m", "2h", "4d": one unit, as in other tables of this kind. */
export function formatAge(since: Date | undefined, now: Date): string {
  if (since === undefined) return '-';
  return formatSeconds(Math.max(0, Math.floor((now.getTime() - since.getTime()) / 1000)));
}

export function formatSeconds(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

/** VM_PHASE_RUNNING → "running". */
export function formatEnum(value: string | undefined, prefix: string): string {
  if (value === undefined || value === 'UNRECOGNIZED') return 'unknown';
  const short = value.startsWith(`${prefix}_`) ? value.slice(prefix.length + 1) : value;
  return short === 'UNSPECIFIED' ? '-' : short.toLowerCase().replaceAll('_', '-');
}

/**
 * Text from the cluster on one line of a terminal. Control and format characters are shown, not sent: a guest's or another
 * user's text must neither move the cursor nor turn the rest of the line around.
 */
export function oneLine(text: string): string {
  return replaceMisleading(text.replaceAll(/\s+/g, ' ').trim(), '\ufffd');
}

export function plural(count: number, one: string): string {
  return `${count} ${one}${count === 1 ? '' : 's'}`;
}
