// SPDX-License-Identifier: Apache-2.0
import { median, ms, type Row } from '../measure.ts';
import type { Ganeti } from './peers/ganeti/ganeti.ts';
import type { Nova } from './peers/nova/nova.ts';
import type { Arrival } from './workload/flavour.ts';

/** What the rows are made with. */
export interface Bench {
  readonly trace: readonly Arrival[];
  /** Random cases put to Nova and to us. */
  readonly cases: number;
  /** Opened at the first use. */
  ganeti(): Promise<Ganeti>;
  /** A process of its own each time; the caller disposes of it. */
  nova(): Promise<Nova>;
}

export type Part = (bench: Bench) => Promise<readonly Row[]>;

/** In all rows of this benchmark the ratio says how many times better than the peer, whatever is measured. */
export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
export const perSecond = (rate: number): string => `${Math.round(rate).toLocaleString('en')}/s`;

export function duration(milliseconds: number): string {
  return milliseconds < 0.1 ? `${(milliseconds * 1000).toFixed(1)} µs` : ms(milliseconds);
}

export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** "p50 … p99 …" */
export function spread(milliseconds: readonly number[]): string {
  return `p50 ${duration(median(milliseconds))}, p99 ${duration(percentile(milliseconds, 0.99))}`;
}
