// SPDX-License-Identifier: Apache-2.0
/** What the monitors' JSON answers mean. Pure. */
import { z } from 'zod';
import type { PoolCapacity } from '../driver.ts';
import { storageError } from '../errors.ts';

const Df = z.object({
  pools: z.array(
    z.object({
      name: z.string(),
      stats: z.object({ stored: z.number(), max_avail: z.number(), quota_bytes: z.number().default(0) }),
    }),
  ),
});

/**
 * `max_avail` is what may be written to this pool until the first OSD is full, after replication. A
 * quota is not in it, so the smaller of the two counts.
 */
export function poolCapacity(df: string, pool: string): PoolCapacity {
  const stats = Df.parse(JSON.parse(df)).pools.find(({ name }) => name === pool)?.stats;
  if (stats === undefined) throw storageError('storageUnavailable', `there is no Ceph pool ${pool}`);
  const stored = BigInt(Math.round(stats.stored));
  const room = BigInt(Math.max(0, Math.round(stats.max_avail)));
  const quota = BigInt(Math.round(stats.quota_bytes));
  const byQuota = quota === 0n ? room : quota > stored ? quota - stored : 0n;
  const totalBytes = stored + room;
  return {
    totalBytes: quota !== 0n && quota < totalBytes ? quota : totalBytes,
    availableBytes: byQuota < room ? byQuota : room,
  };
}

const Health = z.object({
  status: z.string(),
  checks: z.record(
    z.string(),
    z.object({
      summary: z.object({ message: z.string() }),
      detail: z.array(z.object({ message: z.string() })).default([]),
    }),
  ),
});

/** The checks that explain why I/O stands still come first. */
const FIRST = ['PG_AVAILABILITY', 'OSD_DOWN', 'OSD_FULL', 'POOL_FULL', 'MON_DOWN', 'SLOW_OPS'];
const SHOWN_DETAILS = 3;

/** One sentence for an operator out of `health detail`. */
export function describeHealth(health: string): string {
  const { status, checks } = Health.parse(JSON.parse(health));
  const rank = (name: string) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  const found = Object.entries(checks).sort(([a], [b]) => rank(a) - rank(b));
  if (found.length === 0) {
    return `the monitors answer and report ${status}: an OSD hangs or cannot be reached from here, and they have not noticed`;
  }
  const parts = found.map(([name, { summary, detail }]) => {
    const some = detail.slice(0, SHOWN_DETAILS).map(({ message }) => message);
    if (detail.length > SHOWN_DETAILS) some.push(`and ${detail.length - SHOWN_DETAILS} more`);
    return `${name} ${summary.message}${some.length > 0 && rank(name) < FIRST.length ? ` (${some.join('; ')})` : ''}`;
  });
  return `the monitors report ${status}: ${parts.join('. ')}`;
}
