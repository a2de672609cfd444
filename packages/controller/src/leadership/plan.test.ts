// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DEFAULT_TIMINGS, decide, type TermView, type View } from './plan.ts';

const term: TermView = { validUntilMs: 2_700, renewalSentMs: 0, renewal: 'acknowledged', lost: false };
const view = (more: Partial<View>): View => ({
  nowMs: 0,
  term: null,
  key: 'held',
  observedMs: 0,
  notBeforeMs: 0,
  ...more,
});
const decideBy = (more: Partial<View>) => decide(view(more), DEFAULT_TIMINGS);

test.each<[string, Partial<View>, ReturnType<typeof decide>]>([
  ['renews in good time', { nowMs: 800, term }, { do: 'renew' }],
  ['waits for the next renewal', { nowMs: 100, term }, { do: 'wait', untilMs: 800 }],
  ['does not wait for ever for an answer', { nowMs: 600, term: { ...term, renewal: 'pending' } }, { do: 'renew' }],
  ['tries a failed renewal again soon', { nowMs: 200, term: { ...term, renewal: 'failed' } }, { do: 'renew' }],
  [
    'never sleeps past the end',
    { nowMs: 2_650, term: { ...term, renewalSentMs: 2_600 } },
    { do: 'wait', untilMs: 2_700 },
  ],
  ['ends with its lease', { nowMs: 2_700, term }, { do: 'step-down', why: 'expired' }],
  ['ends with its key', { nowMs: 10, term: { ...term, lost: true } }, { do: 'step-down', why: 'lost' }],
  ['campaigns for a free key', { key: 'free' }, { do: 'campaign' }],
  ['stands down', { key: 'free', notBeforeMs: 700 }, { do: 'wait', untilMs: 700 }],
  ['leaves a held key alone', { nowMs: 5 }, { do: 'wait', untilMs: 2_000 }],
  ['looks again in spite of a silent watch', { nowMs: 2_000 }, { do: 'observe' }],
  ['looks before anything else', { key: 'unknown', observedMs: Number.NEGATIVE_INFINITY }, { do: 'observe' }],
])('%s', (_, more, decision) => {
  expect(decideBy(more)).toEqual(decision);
});

test('a wait always ends, and never goes beyond what must happen next', () => {
  const ms = fc.integer({ min: 0, max: 10_000 });
  const anyTerm = fc.record<TermView>({
    validUntilMs: ms,
    renewalSentMs: ms,
    renewal: fc.constantFrom('pending', 'acknowledged', 'failed'),
    lost: fc.boolean(),
  });
  const anyView = fc.record<View>({
    nowMs: ms,
    term: fc.option(anyTerm),
    key: fc.constantFrom('unknown', 'free', 'held'),
    observedMs: ms,
    notBeforeMs: ms,
  });
  fc.assert(
    fc.property(anyView, (seen) => {
      const decision = decide(seen, DEFAULT_TIMINGS);
      if (decision.do === 'campaign') expect([seen.term, seen.key]).toEqual([null, 'free']);
      if (decision.do !== 'wait') return;
      expect(decision.untilMs).toBeGreaterThan(seen.nowMs);
      expect(decision.untilMs).toBeLessThanOrEqual(seen.term?.validUntilMs ?? seen.observedMs + 2_000);
      expect(decide({ ...seen, nowMs: decision.untilMs }, DEFAULT_TIMINGS).do).not.toBe('wait');
    }),
  );
});
