// SPDX-License-Identifier: Apache-2.0
// Rules over single files: headers, length, leftovers, links.
import { posix } from 'node:path';
import { codeOf, type Finding, isCode, isGenerated, isTest, sources, type Tree } from './tree.ts';

const HEADER = 'SPDX-License-Identifier: Apache-2.0';
const MAX_LINES = 400;
/** Programs that talk to people on a terminal. A daemon logs through pino, a library through what it is given. */
const TALKS_TO_PEOPLE = /^(packages\/cli|deploy|tools|bench)\//;

export function header(tree: Tree): Finding[] {
  return (
    [...tree]
      .filter(([path]) => /\.(ts|tsx|mjs|js|proto|sh|py)$/.test(path) && !isGenerated(path))
      // The second line where the first says which program runs the file.
      .filter(([, text]) => !text.split('\n', 2).some((line) => line.includes(HEADER)))
      .map(([path]) => ({ path, what: `does not start with "${HEADER}"` }))
  );
}

export function length(tree: Tree): Finding[] {
  return sources(tree)
    .map(([path, text]) => ({ path, lines: text.replace(/\n$/, '').split('\n').length }))
    .filter(({ lines }) => lines > MAX_LINES)
    .map(({ path, lines }) => ({ path, what: `has ${lines} lines` }));
}

export function silence(tree: Tree): Finding[] {
  return matches(
    // What only tests load may be a program of its own that answers on stdout, or hold the text of one.
    sources(tree).filter(([path]) => !TALKS_TO_PEOPLE.test(path) && (!isTest(path) || path.startsWith('e2e/'))),
    /\bconsole\.(?:log|info|debug|warn|error|trace|dir|table)\b/g,
  );
}

export function leftOut(tree: Tree): Finding[] {
  return matches(
    sources(tree).filter(([path]) => path.endsWith('.test.ts')),
    /\b(?:it|test|describe|suite)(?:\.\w+)*\.(?:skip|only|todo|skipIf|runIf)\b/g,
  );
}

export function elsewhere(tree: Tree): Finding[] {
  return [...tree].flatMap(([path, text]) => {
    const found = /(?<![\w.~}-])\/(?:work|root)\/\S*|\bregistry\.(?!test\.ts\b)[a-z]+\.[a-z]+\b/.exec(text)?.[0];
    return found === undefined ? [] : [{ path, what: `names ${found}` }];
  });
}

export function links(tree: Tree): Finding[] {
  const folders = new Set([...tree.keys()].flatMap((path) => parents(path)));
  return [...tree]
    .filter(([path]) => path.endsWith('.md'))
    .flatMap(([path, text]) =>
      [...withoutCode(text).matchAll(/\]\(\s*<?([^)\s>]+)/g)].flatMap(([, link = '']) => {
        if (/^[a-z][a-z0-9+.-]*:/.test(link)) return [];
        const [file = '', anchor] = link.split('#');
        const target = file === '' ? path : posix.normalize(posix.join(posix.dirname(path), file)).replace(/\/$/, '');
        const there = tree.get(target);
        if (there === undefined && !folders.has(target))
          return [{ path, what: `links to ${link}, which is not there` }];
        if (anchor === undefined || there === undefined || !target.endsWith('.md')) return [];
        return anchors(there).has(anchor) ? [] : [{ path, what: `links to ${link}: no such heading` }];
      }),
    );
}

function matches(files: readonly [string, string][], what: RegExp): Finding[] {
  return files.flatMap(([path, text]) => [...codeOf(text).matchAll(what)].map(([found]) => ({ path, what: found })));
}

function parents(path: string): string[] {
  const parts = path.split('/').slice(0, -1);
  return parts.map((_, index) => parts.slice(0, index + 1).join('/'));
}

function withoutCode(text: string): string {
  return text.replaceAll(/^```[\s\S]*?^```/gm, '').replaceAll(/`[^`\n]*`/g, '');
}

/** As GitHub makes them. */
function anchors(text: string): Set<string> {
  const headings = text.replaceAll(/^```[\s\S]*?^```/gm, '').matchAll(/^#{1,6} +(.+)$/gm);
  return new Set(
    [...headings].map(([, title = '']) =>
      title
        .trim()
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

/** For the message of a file that is code yet lies where no rule looks. */
export function strays(tree: Tree): Finding[] {
  const known = /^(packages|deploy|e2e|bench|tools)\/|^vitest\.config\.ts$/;
  return [...tree.keys()]
    .filter((path) => isCode(path) && !known.test(path))
    .map((path) => ({ path, what: 'lies where neither tests nor types look' }));
}
