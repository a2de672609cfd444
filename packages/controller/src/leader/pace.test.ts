// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newPace } from './pace.ts';

describe('pace of the leader', () => {
  it('lets single bursts pass', () => {
    const pace = newPace();
    for (let round = 0; round < 25; round++) expect(pace.rest(round * 10, round * 10 + 10)).toBe(0);
    expect(newPace().rest(0, 100)).toBe(0);
  });

  it('grants rounds half of the time in the long run, whatever they take', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 200, maxLength: 300 }), (durations) => {
        const pace = newPace();
        let nowMs = 0;
        let busyMs = 0;
        for (const duration of durations) {
          const restMs = pace.rest(nowMs, nowMs + duration);
          busyMs += duration;
          nowMs += duration + restMs;
        }
        expect(busyMs).toBeLessThanOrEqual(nowMs / 2 + 250 + 200);
      }),
    );
  });

  it('does not sleep on an outlier, and is itself again after a pause', () => {
    const pace = newPace();
    expect(pace.rest(0, 60_000)).toBe(250);
    expect(pace.rest(60_250, 60_260)).toBeLessThanOrEqual(260);
    expect(pace.rest(65_000, 65_200)).toBe(0);
  });
});
