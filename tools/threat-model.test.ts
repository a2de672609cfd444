// SPDX-License-Identifier: Apache-2.0
/** The threat model names tests as evidence: each of them has to exist, under that name. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const text = readFileSync(new URL('../docs/security/threat-model.md', import.meta.url), 'utf8');
const rows = text.split('\n').filter((line) => /^\| [STRIDE]/.test(line));
const evidence = rows.flatMap((row) => [
  ...row.matchAll(/`([^`]+(?:\.test|\/conformance)\.ts)` > (.*?)(?=; `| \||; to be named|; the seeds|; the command)/g),
]);

test('every row has a test, or says that it has none', () => {
  expect(rows.length).toBeGreaterThan(60);
  const bare = rows.filter((row) => !/(?:\.test|\/conformance)\.ts` > |no test|accepted/.test(row));
  expect(bare).toEqual([]);
});

test.each(evidence.map(([, file, name]) => [file, name] as const))('%s > %s', (file, name) => {
  const path = new URL(`../${file}`, import.meta.url);
  expect(existsSync(path)).toBe(true);
  expect(readFileSync(path, 'utf8')).toContain(name);
});
