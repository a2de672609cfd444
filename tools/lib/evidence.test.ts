// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { type Evidence, evidenceIn, unproven } from './evidence.ts';
import type { TestOutcome } from './test-events.ts';

const ran = (file: string, name: string, state: TestOutcome['state'] = 'passed'): TestOutcome => ({
  file,
  name,
  state,
  ms: 1,
  message: '',
});
const cited = (file: string, title: string): Evidence[] => [{ file, title }];
const everywhere = () => true;

describe('evidence', () => {
  it('is what the rows of the threat model name, several in a row', () => {
    const text = [
      '| S | a threat | what stops it | `a/b.test.ts` > refuses it; `c/conformance.ts` > %s is refused |',
      '| T | another | nothing | no test |',
      'see `d/e.test.ts` > not a row',
    ].join('\n');
    expect(evidenceIn(text)).toEqual([
      { file: 'a/b.test.ts', title: 'refuses it' },
      { file: 'c/conformance.ts', title: '%s is refused' },
    ]);
  });

  it('is a test of that file and title, or the row of a table, that passed', () => {
    const outcomes = [ran('a.test.ts', 'a suite > refuses it'), ran('b.test.ts', 'a suite > with refuses its end')];
    expect(unproven(cited('a.test.ts', 'refuses it'), outcomes, everywhere)).toEqual([]);
    expect(unproven(cited('a.test.ts', 'a suite'), outcomes, everywhere)).toEqual([]);
    expect(unproven(cited('b.test.ts', 'refuses it'), outcomes, everywhere)).toHaveLength(1);
    expect(unproven(cited('b.test.ts', 'a suite > with refuses'), outcomes, everywhere)).toEqual([]);
    expect(unproven(cited('c.test.ts', 'refuses it'), outcomes, everywhere)[0]?.message).toContain('no test of that');
  });

  it('is none when it was skipped or failed', () => {
    for (const state of ['skipped', 'failed'] as const)
      expect(
        unproven(cited('a.test.ts', 'refuses it'), [ran('a.test.ts', 'refuses it', state)], everywhere)[0]?.message,
      ).toContain(state);
  });

  it('is none when one of several of that title did not pass', () => {
    const outcomes = [ran('a.test.ts', 'x > 1 is refused'), ran('a.test.ts', 'x > 2 is refused', 'failed')];
    expect(unproven(cited('a.test.ts', '%s is refused'), outcomes, everywhere)).toHaveLength(1);
  });

  it('may have places for parameters, and its own signs', () => {
    const outcomes = [
      ran('a.test.ts', 'a "client" (1 of 2) is refused'),
      ran('x.conformance.test.ts', 'etcd > $1 is fine'),
    ];
    expect(unproven(cited('a.test.ts', 'a %j (%i of 2) is refused'), outcomes, everywhere)).toEqual([]);
    expect(unproven(cited('a.test.ts', 'a %j (%i of 3) is refused'), outcomes, everywhere)).toHaveLength(1);
    expect(unproven(cited('store/conformance.ts', '$1 is fine'), outcomes, everywhere)).toEqual([]);
  });

  it('of files that another command runs is not asked for', () => {
    expect(unproven(cited('a.attack-long.test.ts', 'x'), [], (file) => !file.includes('-long'))).toEqual([]);
  });
});
