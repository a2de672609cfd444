// SPDX-License-Identifier: Apache-2.0
// The threat model names tests as evidence. A text in a file is none: the test must have run, and passed.
import type { TestOutcome } from './test-events.ts';

export interface Evidence {
  readonly file: string;
  readonly title: string;
}

export function evidenceIn(threatModel: string): readonly Evidence[] {
  const rows = threatModel.split('\n').filter((line) => /^\| [STRIDE]/.test(line));
  const cited = /`([^`]+(?:\.test|\/conformance)\.ts)` > (.*?)(?=; `| \||; to be named|; the seeds|; the command)/g;
  return rows.flatMap((row) => [...row.matchAll(cited)].map(([, file = '', title = '']) => ({ file, title })));
}

/**
 * A title with vitest's places for parameters, as a pattern for what it becomes in a run. It may be a part of a test's name: a
 * suite, all of whose tests count, or the parameter that tells one row of a table from the others.
 */
function pattern(title: string): RegExp {
  const parts = title.split(/%[sdifjoO#$]|\$[a-zA-Z][\w.]*/);
  const text = parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*');
  return new RegExp(`(?<![\\p{L}\\p{N}])${text}(?![\\p{L}\\p{N}])`, 'su');
}

/**
 * A failure for each citation that no test of this run bears out. Titles in a suite of a contract (`conformance.ts`) count
 * from whichever file calls it.
 */
export function unproven(
  evidence: readonly Evidence[],
  outcomes: readonly TestOutcome[],
  runsHere: (file: string) => boolean,
): readonly TestOutcome[] {
  return evidence.flatMap(({ file, title }) => {
    const isContract = !file.endsWith('.test.ts');
    if (!isContract && !runsHere(file)) return [];
    const matches = pattern(title);
    const found = outcomes.filter((test) => (isContract || test.file === file) && matches.test(test.name));
    const bad = found.find(({ state }) => state !== 'passed');
    if (found.length > 0 && bad === undefined) return [];
    const why = bad === undefined ? 'no test of that title ran' : `"${bad.name}" ${bad.state}`;
    const message = `docs/security/threat-model.md names it as evidence: ${why}`;
    return [{ file, name: title, state: 'failed' as const, ms: 0, message }];
  });
}
