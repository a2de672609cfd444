// SPDX-License-Identifier: Apache-2.0
// `pnpm build`: one ESM file for each program into dist/, for packages. Development and the lab run the TypeScript as it
// is. koffi, a native module, is copied to dist/node_modules; everything else is in the bundles, so that dist/ can be
// moved to a machine that has nothing but Node 24.
//
// A file named by `new URL('./x.ts', import.meta.url)` is a program of its own (the child processes that host C
// libraries) or data: it gets a file beside the bundles, and the URL in the bundle names that.
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { dirname, extname, join, relative, resolve } from 'node:path';
import { build, type Plugin } from 'esbuild';
import { ROOT, seconds } from './lib/process.ts';

const DIST = join(ROOT, 'dist');
const PROGRAMS: Readonly<Record<string, string>> = {
  busbar: 'packages/cli/src/main.ts',
  'busbar-controller': 'packages/controller/src/main.ts',
  'busbar-agent': 'packages/agent/src/main.ts',
};
/** Native module → a package that declares it, from where it is found. */
const NATIVE: Readonly<Record<string, string>> = { koffi: 'packages/storage' };
const NEIGHBOUR = /new URL\(\s*'(\.{1,2}\/[^']+)',\s*import\.meta\.url\s*\)/g;

/** `packages/storage/src/ffi/child.ts` → `storage-ffi-child`: no two source files share it, and it does not change. */
function outputName(path: string): string {
  return relative(join(ROOT, 'packages'), path)
    .replace('/src/', '/')
    .replace(/\.[a-z]+$/, '')
    .replaceAll('/', '-');
}

/** Rewrites the neighbours' URLs and remembers which they are. */
function neighbours(found: Map<string, string>): Plugin {
  return {
    name: 'neighbours',
    setup(plugin) {
      plugin.onLoad({ filter: /\/(packages|deploy)\/.*\.ts$/ }, ({ path }) => {
        if (path.includes('/node_modules/')) return undefined;
        const contents = readFileSync(path, 'utf8').replaceAll(NEIGHBOUR, (whole, specifier: string) => {
          const target = resolve(dirname(path), specifier);
          if (!existsSync(target)) return whole;
          const output = `${outputName(target)}${extname(target) === '.ts' ? '.mjs' : extname(target)}`;
          found.set(target, output);
          return `new URL('./${output}', import.meta.url)`;
        });
        return { contents, loader: 'ts' };
      });
    },
  };
}

async function bundle(entries: readonly { in: string; out: string }[], found: Map<string, string>): Promise<void> {
  await build({
    entryPoints: [...entries],
    outdir: DIST,
    outExtension: { '.js': '.mjs' },
    absWorkingDir: ROOT,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    sourcemap: true,
    external: Object.keys(NATIVE),
    // Some dependencies are CommonJS and call require() for Node's own modules, which an ES module does not have.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    plugins: [neighbours(found)],
    logLevel: 'warning',
  });
}

/** With its neighbours in pnpm's store: they are what it depends on, the binary of this platform among them. */
function copyNative(name: string, declaredBy: string): void {
  const folder = resolve(realpathSync(join(ROOT, declaredBy, 'node_modules', name)), '..');
  cpSync(folder, join(DIST, 'node_modules'), { recursive: true, dereference: true });
}

const startMs = performance.now();
rmSync(DIST, { recursive: true, force: true });
mkdirSync(DIST, { recursive: true });
const found = new Map<string, string>();
const done = new Set<string>();
const programs = Object.entries(PROGRAMS).filter(([, path]) => existsSync(join(ROOT, path)));
await bundle(
  programs.map(([out, path]) => ({ in: path, out })),
  found,
);
// A child may name neighbours in its turn.
for (let next = [...found]; next.length > 0; next = [...found].filter(([path]) => !done.has(path))) {
  for (const [path, output] of next.filter(([path]) => extname(path) !== '.ts')) copyFileSync(path, join(DIST, output));
  const children = next.filter(([path]) => extname(path) === '.ts');
  if (children.length > 0) {
    await bundle(
      children.map(([path, output]) => ({ in: path, out: output.replace(/\.mjs$/, '') })),
      found,
    );
  }
  for (const [path] of next) done.add(path);
}
for (const [name, declaredBy] of Object.entries(NATIVE)) copyNative(name, declaredBy);
for (const name of [...programs.map(([name]) => `${name}.mjs`), ...new Set(found.values())]) {
  console.log(`dist/${name.padEnd(36)} ${String(Math.ceil(statSync(join(DIST, name)).size / 1024)).padStart(6)} KiB`);
}
const missing = Object.entries(PROGRAMS).filter(([, path]) => !existsSync(join(ROOT, path)));
for (const [name, path] of missing) console.error(`${name}: ${path} does not exist`);
console.log(`built in ${seconds(performance.now() - startMs)}`);
if (missing.length > 0) process.exitCode = 1;
