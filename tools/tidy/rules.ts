// SPDX-License-Identifier: Apache-2.0
// The rules of the repository that no other tool checks, each with its reason. tools/tidy.test.ts runs them, and shows
// for each one by an example of examples.ts that it can fail.
import { confined, cycles, fences, layers, pure } from './borders.ts';
import { debianPackages, explained, undeclared, unused, versions } from './dependencies.ts';
import { elsewhere, header, leftOut, length, links, silence, strays } from './text.ts';
import type { Finding, Tree } from './tree.ts';

interface Rule {
  readonly because: string;
  readonly check: (tree: Tree) => Finding[];
}

export const RULES = {
  'imports go one way': {
    because: 'a lower layer that knows a higher one cannot be tested, replaced or understood without it',
    check: layers,
  },
  'packages are entered by name': {
    because: 'a relative path into another package passes by its manifest, and with it by the borders',
    check: fences,
  },
  'native code and etcd are confined': {
    because: 'koffi can crash the process, and etcd answers in ways that have to be understood: only these folders do',
    check: confined,
  },
  'no circles between packages': {
    because: 'what imports itself by a detour is one package in several folders',
    check: cycles,
  },
  'the core is pure': {
    because: 'plans, state tables and placement are replayed from a seed: no clock, no chance, no I/O',
    check: pure,
  },
  'what is imported is declared': {
    because: 'an undeclared package is found by luck of the layout of node_modules',
    check: undeclared,
  },
  'what is declared is imported': {
    because: 'every dependency costs: updates, advisories, size on an air-gapped site',
    check: unused,
  },
  'versions stand in the catalog': { because: 'two versions of one package are two bugs', check: versions },
  'dependencies are explained': {
    because: 'an auditor asks for each one: what is it, under which licence, why this one',
    check: explained,
  },
  'Debian packages are explained': {
    because: 'the same question for what comes from the system',
    check: debianPackages,
  },
  'every file carries its licence': { because: 'files travel without their repository', check: header },
  'files are short': {
    because: 'beyond 400 lines a file is several modules in one room',
    check: length,
  },
  'only tools for people print': {
    because: 'a daemon logs JSON through pino, where journald and redaction reach it',
    check: silence,
  },
  'no test is left out': {
    because: 'a skip needs a reason that reaches the report: context.skip("why"); the rest is forgotten work',
    check: leftOut,
  },
  'no place of one machine': {
    because: 'paths and registry hosts of one machine are wrong on every other',
    check: elsewhere,
  },
  'links in the documentation resolve': { because: 'a page that is not there explains nothing', check: links },
  'code lies where tools look': { because: 'what no type check and no test sees rots', check: strays },
} as const satisfies Record<string, Rule>;

export type RuleName = keyof typeof RULES;
