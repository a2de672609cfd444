// SPDX-License-Identifier: Apache-2.0
// What is declared, what is imported and what docs/dependencies.md explains have to be the same things.
import {
  catalogOf,
  codeOf,
  type Finding,
  folderOf,
  importsOf,
  isCode,
  isTest,
  type Manifest,
  manifestsOf,
  packageOf,
  type Tree,
} from './tree.ts';

const PAGE = 'docs/dependencies.md';

/** The root's dependencies that nobody imports: programs, by the place that runs them. */
const PROGRAMS: Readonly<Record<string, { readonly file: string; readonly says: RegExp }>> = {
  '@biomejs/biome': { file: 'package.json', says: /"biome / },
  '@bufbuild/buf': { file: 'tools/lib/generated.ts', says: /'buf'/ },
  '@busbar/cli': { file: 'packages/cli/package.json', says: /"bin"/ },
  '@types/node': { file: 'tsconfig.json', says: /"types": \["node"\]/ },
  node: { file: 'tools/bootstrap.mjs', says: /join\(BIN, 'node'\)/ },
  oxlint: { file: 'tools/lib/checks.ts', says: /'oxlint'/ },
  'oxlint-tsgolint': { file: 'tools/lib/checks.ts', says: /'--type-aware'/ },
  'ts-proto': { file: 'packages/proto/buf.gen.yaml', says: /protoc-gen-ts_proto/ },
  typescript: { file: 'tools/lib/checks.ts', says: /'tsc'/ },
};

/** Package → the files that import it, of one manifest's own folder. Generated code counts: it is what proto needs. */
function importedBy(tree: Tree, { folder }: Manifest): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const [path, text] of tree) {
    if (!isCode(path) || folderOf(path) !== folder) continue;
    for (const { specifier } of importsOf(path, text)) {
      const name = packageOf(specifier);
      if (name !== null) found.set(name, [...(found.get(name) ?? []), path]);
    }
  }
  return found;
}

export function undeclared(tree: Tree): Finding[] {
  const manifests = manifestsOf(tree);
  const forTests = manifests.find(({ folder }) => folder === '')?.dependencies ?? {};
  return manifests.flatMap((manifest) =>
    [...importedBy(tree, manifest)].flatMap(([name, paths]) => {
      if (name === manifest.name || manifest.dependencies[name] !== undefined) return [];
      const path = paths.find((importer) => !isTest(importer) || forTests[name] === undefined);
      return path === undefined ? [] : [{ path, what: `imports ${name}, which ${manifest.path} does not declare` }];
    }),
  );
}

export function unused(tree: Tree): Finding[] {
  const manifests = manifestsOf(tree);
  const everywhere = new Set(manifests.flatMap((manifest) => [...importedBy(tree, manifest).keys()]));
  return manifests.flatMap((manifest) => {
    const imported = importedBy(tree, manifest);
    // Laid out, not begun.
    if (manifest.folder !== '' && imported.size === 0) return [];
    const isUsed = (name: string): boolean => {
      if (manifest.folder !== '') return imported.has(name);
      const program = PROGRAMS[name];
      return everywhere.has(name) || (program?.says.test(tree.get(program.file) ?? '') ?? false);
    };
    return Object.keys(manifest.dependencies)
      .filter((name) => !isUsed(name))
      .map((name) => ({ path: manifest.path, what: `declares ${name}, which nothing imports` }));
  });
}

export function versions(tree: Tree): Finding[] {
  const declared = manifestsOf(tree).flatMap(({ path, dependencies }) =>
    Object.entries(dependencies).map(([name, version]) => ({ path, name, version })),
  );
  const names = new Set(declared.map(({ name }) => name));
  return [
    ...declared
      .filter(({ version }) => version !== 'catalog:' && version !== 'workspace:*')
      .map(({ path, name, version }) => ({ path, what: `${name} is "${version}": versions stand in the catalog` })),
    ...[...catalogOf(tree).keys()]
      .filter((name) => !names.has(name))
      .map((name) => ({ path: 'pnpm-workspace.yaml', what: `the catalog has ${name}, which no package declares` })),
  ];
}

/** The table of the page: `| name | version | licence | what for | why it and not another |`. */
export function explained(tree: Tree): Finding[] {
  const page = tree.get(PAGE);
  if (page === undefined) return [{ path: PAGE, what: 'is missing' }];
  const catalog = catalogOf(tree);
  const section = /^## Node modules$([\s\S]*?)(?=^## |$(?![\s\S]))/m.exec(page)?.[1] ?? '';
  const rows = new Map(
    section
      .split('\n')
      .filter((line) => /^\| `/.test(line))
      .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')))
      .map(([, name = '', version = '', ...rest]) => [name, { version, rest: rest.slice(0, -1) }]),
  );
  return [
    ...[...catalog].flatMap(([name, version]) => {
      const row = rows.get(name);
      if (row === undefined) return [{ path: PAGE, what: `has no line for ${name}` }];
      if (row.version !== version) return [{ path: PAGE, what: `says ${name} ${row.version}; it is ${version}` }];
      return row.rest.some((cell) => cell === '') ? [{ path: PAGE, what: `has an empty cell for ${name}` }] : [];
    }),
    ...[...rows.keys()]
      .filter((name) => !catalog.has(name))
      .map((name) => ({ path: PAGE, what: `has a line for ${name}, which is not in the catalog` })),
  ];
}

/** A Debian package that is installed and that nobody wrote down the reason for. */
export function debianPackages(tree: Tree): Finding[] {
  const page = tree.get(PAGE) ?? '';
  return ['tools/debian-packages.txt', 'deploy/guest/debian-packages.txt'].flatMap((path) =>
    codeOf(tree.get(path) ?? '')
      .split('\n')
      .map((line) => line.replace(/#.*/, '').trim().split(/\s+/)[0] ?? '')
      .filter((name) => name !== '' && !page.includes(`\`${name}\``))
      .map((name) => ({ path: PAGE, what: `has no line for the Debian package ${name} of ${path}` })),
  );
}
