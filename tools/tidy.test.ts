// SPDX-License-Identifier: Apache-2.0
// The repository checks itself by the rules of tidy/rules.ts, and the rules are checked by tidy/examples.ts.
import { describe, expect, it } from 'vitest';
import { ROOT } from './lib/process.ts';
import { EXAMPLES } from './tidy/examples.ts';
import { RULES, type RuleName } from './tidy/rules.ts';
import { readTree, type Tree } from './tidy/tree.ts';

const names = Object.keys(RULES) as RuleName[];
const treeOf = (files: Readonly<Record<string, string>>): Tree => new Map(Object.entries(files));

describe('the repository', () => {
  const tree = readTree(ROOT);

  it('is seen by the rules at all', () => {
    expect(tree.size).toBeGreaterThan(50);
    expect(tree.has('tools/tidy.test.ts')).toBe(true);
  });

  it.each(names)('%s', (name) => {
    const { because, check } = RULES[name];
    const found = check(tree).map(({ path, what }) => `${path}: ${what}`);
    if (found.length > 0) expect.fail(`${name}, because ${because}:\n${found.join('\n')}`);
  });
});

describe('the rules', () => {
  it.each(names.flatMap((name) => EXAMPLES[name].bad.map((files) => ({ name, files }))))(
    '$name: refuses $files',
    (example) => {
      expect(RULES[example.name].check(treeOf(example.files))).not.toEqual([]);
    },
  );

  it.each(names.flatMap((name) => EXAMPLES[name].good.map((files) => ({ name, files }))))(
    '$name: allows $files',
    (example) => {
      expect(RULES[example.name].check(treeOf(example.files))).toEqual([]);
    },
  );

  it.each(names)('%s: has an example that breaks it', (name) => {
    expect(EXAMPLES[name].bad.length).toBeGreaterThan(0);
  });
});
