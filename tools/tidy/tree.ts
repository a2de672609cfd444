// SPDX-License-Identifier: Apache-2.0
// The repository as the rules see it: paths and texts. Pure but for `readTree`, so that a rule can be tested on a tree
// of a few lines.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Path from the repository's root → text. */
export type Tree = ReadonlyMap<string, string>;

export interface Finding {
  readonly path: string;
  readonly what: string;
}

export interface Import {
  readonly path: string;
  readonly specifier: string;
  /** `import type`: gone at run time. */
  readonly typeOnly: boolean;
}

export interface Manifest {
  readonly path: string;
  /** The folder, '' for the root. */
  readonly folder: string;
  readonly name: string;
  readonly dependencies: Readonly<Record<string, string>>;
}

const BINARY = /\.(binpb|png|ico|gz|qcow2|img)$/;

/** What git tracks or would track, as it is in the working tree. */
export function readTree(root: string): Tree {
  const listed = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  if (listed.status !== 0) throw new Error(`git ls-files: ${listed.error?.message ?? listed.stderr}`);
  const tree = new Map<string, string>();
  for (const path of listed.stdout.split('\0')) {
    if (path === '' || BINARY.test(path) || !existsSync(join(root, path))) continue;
    tree.set(path, readFileSync(join(root, path), 'utf8'));
  }
  return tree;
}

export const isGenerated = (path: string): boolean => path.startsWith('packages/proto/src/gen/');
export const isCode = (path: string): boolean => /\.(ts|tsx|mjs|js)$/.test(path);
/** Tests and what only tests load: they may use the root's development dependencies. */
export const isTest = (path: string): boolean =>
  /\.(test|fixture)\.ts$|\/conformance\.ts$|\/testing\/|^e2e\//.test(path);

export function sources(tree: Tree): [path: string, text: string][] {
  return [...tree].filter(([path]) => isCode(path) && !isGenerated(path));
}

/**
 * Static imports stand at the start of a line, which the formatter sees to; dynamic ones anywhere. No parser: TypeScript
 * 7 has none to call, and the others drop type imports.
 */
export function importsOf(path: string, text: string): Import[] {
  const found: Import[] = [];
  const statements = /^(?:import|export)\s(?:(type\s)?[\w$*{},\s]*?\sfrom\s+)?['"]([^'"]+)['"]/gm;
  for (const [, type, specifier = ''] of text.matchAll(statements)) {
    found.push({ path, specifier, typeOnly: type !== undefined });
  }
  // Strings in double quotes hold a quote themselves: words, no code.
  const code = codeOf(text).replaceAll(/"[^"\n]*"/g, '""');
  for (const [, specifier = ''] of code.matchAll(/\bimport\(\s*'([^']+)'/g)) {
    found.push({ path, specifier, typeOnly: false });
  }
  // A file of a package that is run or read, not loaded.
  for (const [, specifier = ''] of code.matchAll(/\bcreateRequire\(import\.meta\.url\)\.resolve\('([^']+)'/g)) {
    found.push({ path, specifier, typeOnly: false });
  }
  return found;
}

/** Without comments; good enough for code that the formatter has been through. */
export function codeOf(text: string): string {
  return text
    .replaceAll(/^\s*\/\*[\s\S]*?\*\//gm, '')
    .replaceAll(/^\s*\/\/.*$/gm, '')
    .replaceAll(/\s\/\/ .*$/gm, '');
}

/** `packages/agent/src/x.ts` → `packages/agent`; '' for what belongs to the root. */
export function folderOf(path: string): string {
  const [first = '', second = ''] = path.split('/');
  if (first === 'packages') return `${first}/${second}`;
  return ['deploy', 'e2e', 'bench'].includes(first) ? first : '';
}

/** `@busbar/core/result` → `@busbar/core`; null for relative paths and Node's own modules. */
export function packageOf(specifier: string): string | null {
  if (specifier.startsWith('.') || specifier.startsWith('node:')) return null;
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}

export function manifestsOf(tree: Tree): Manifest[] {
  return [...tree]
    .filter(([path]) => /(^|\/)package\.json$/.test(path))
    .map(([path, text]) => {
      const json = JSON.parse(text) as Record<string, unknown>;
      const dependencies: Record<string, string> = {};
      for (const kind of ['dependencies', 'devDependencies', 'peerDependencies', 'optionalDependencies']) {
        Object.assign(dependencies, json[kind]);
      }
      const folder = path.replace(/\/?package\.json$/, '');
      return { path, folder, name: String(json['name']), dependencies };
    });
}

/** name → version, out of pnpm-workspace.yaml; two levels of YAML need no parser. */
export function catalogOf(tree: Tree): Map<string, string> {
  const block = /^catalog:\n((?: .*\n|\n)+)/m.exec(tree.get('pnpm-workspace.yaml') ?? '')?.[1] ?? '';
  const lines = block.matchAll(/^ +['"]?([^'":\s]+)['"]?: *['"]?([^'"\s]+)/gm);
  return new Map([...lines].map(([, name = '', version = '']) => [name, version]));
}
