// SPDX-License-Identifier: Apache-2.0
/** The threat model names tests as evidence: each has to exist. `npm test` also asks whether they ran and passed. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { evidenceIn } from './lib/evidence.ts';

const text = readFileSync(new URL('../docs/security/threat-model.md', import.meta.url), 'utf8');
const rows = text.split('\n').filter((line) => /^\| [STRIDE]/.test(line));

test('every row has a test, or says that it has none', () => {
  expect(rows.length).toBeGreaterThan(60);
  const bare = rows.filter((row) => !/(?:\.test|\/conformance)\.ts` > |no test|accepted/.test(row));
  expect(bare).toEqual([]);
});

test.each(evidenceIn(text).map(({ file, title }) => [file, title] as const))('%s > %s', (file, name) => {
  const path = new URL(`../${file}`, import.meta.url);
  expect(existsSync(path)).toBe(true);
  expect(readFileSync(path, 'utf8')).toContain(name);
});
