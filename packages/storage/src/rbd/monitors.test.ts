// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { describeHealth, poolCapacity } from './monitors.ts';

describe('the capacity of a pool', () => {
  const df = (quota_bytes: number, stored = 100) =>
    JSON.stringify({ pools: [{ name: 'busbar', stats: { stored, max_avail: 900, quota_bytes } }] });

  test.each([
    ['no quota', df(0), 1000n, 900n],
    ['a quota below it', df(300), 300n, 200n],
    ['a quota that is used up', df(50), 50n, 0n],
    ['a quota above it', df(5000), 1000n, 900n],
  ])('%s', (_what, answer, totalBytes, availableBytes) => {
    expect(poolCapacity(answer, 'busbar')).toEqual({ totalBytes, availableBytes });
  });

  test('a pool that is not there', () => {
    expect(() => poolCapacity(df(0), 'other')).toThrow('there is no Ceph pool other');
  });
});

test('the health that explains standing I/O comes first, with its details', () => {
  const check = (message: string, ...detail: string[]) => ({
    severity: 'HEALTH_WARN',
    summary: { message, count: 1 },
    detail: detail.map((text) => ({ message: text })),
  });
  const text = describeHealth(
    JSON.stringify({
      status: 'HEALTH_WARN',
      checks: {
        RECENT_CRASH: check('1 daemons have recently crashed', 'mgr.x crashed'),
        OSD_DOWN: check('1 osds down', 'osd.0 is down'),
        PG_AVAILABILITY: check('Reduced data availability: 8 pgs stale', 'pg 1.0', 'pg 1.1', 'pg 1.2', 'pg 1.3'),
      },
    }),
  );
  expect(text).toBe(
    'the monitors report HEALTH_WARN: PG_AVAILABILITY Reduced data availability: 8 pgs stale ' +
      '(pg 1.0; pg 1.1; pg 1.2; and 1 more). OSD_DOWN 1 osds down (osd.0 is down). ' +
      'RECENT_CRASH 1 daemons have recently crashed',
  );
});

test('healthy monitors and silence point at an OSD', () => {
  expect(describeHealth('{"status":"HEALTH_OK","checks":{},"mutes":[]}')).toContain(
    'an OSD hangs or cannot be reached',
  );
});
