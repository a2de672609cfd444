// SPDX-License-Identifier: Apache-2.0
// Which part of the repository may import which. The order is that of the design: proto ← core ← pki, telemetry,
// native ← scheduler | storage ← agent, controller ← cli.
import { posix } from 'node:path';
import { codeOf, type Finding, folderOf, type Import, importsOf, isCode, isTest, sources, type Tree } from './tree.ts';

/** A package may import exactly these of ours. What is not a package (deploy, e2e, bench, tools) may import any. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  proto: [],
  core: ['proto'],
  pki: ['core'],
  telemetry: ['proto', 'core'],
  native: ['proto', 'core'],
  scheduler: ['proto', 'core'],
  storage: ['proto', 'core', 'native'],
  agent: ['proto', 'core', 'pki', 'telemetry', 'native', 'scheduler', 'storage'],
  controller: ['proto', 'core', 'pki', 'telemetry', 'native', 'scheduler', 'storage'],
  cli: ['proto', 'core', 'pki', 'scheduler'],
  console: ['proto', 'core'],
};

/** Third parties that only these folders may touch. */
const CONFINED: readonly { readonly what: RegExp; readonly to: readonly string[] }[] = [
  { what: /^koffi(\/|$)/, to: ['packages/storage/src/ffi/', 'packages/agent/src/libvirt/ffi/'] },
];

/** The name of etcd's gRPC services: whoever writes it speaks its protocol, whatever it imports. */
const ETCD_PROTOCOL = { what: /\betcdserverpb\b/, to: 'packages/controller/src/store/' } as const;

const IMPURE: readonly { readonly what: RegExp; readonly name: string }[] = [
  { what: /\bDate\.now\b|\bnew Date\(\s*\)/, name: 'reads the wall clock' },
  { what: /\bperformance\s*\./, name: 'reads the monotonic clock' },
  { what: /\bMath\.random\b|\brandomUUID\b|\bgetRandomValues\b/, name: 'is random' },
  { what: /\bset(Timeout|Interval|Immediate)\s*\(|\bqueueMicrotask\s*\(/, name: 'uses a timer' },
  { what: /\bprocess\s*\.|\bfetch\s*\(/, name: 'reaches outside' },
];

function allImports(tree: Tree): Import[] {
  return [...tree].filter(([path]) => isCode(path)).flatMap(([path, text]) => importsOf(path, text));
}

export function layers(tree: Tree): Finding[] {
  return allImports(tree).flatMap(({ path, specifier }) => {
    const from = /^packages\/([^/]+)\//.exec(path)?.[1];
    const to = /^@busbar\/([^/]+)/.exec(specifier)?.[1];
    if (from === undefined || to === undefined || from === to) return [];
    const allowed = MAY_IMPORT[from];
    if (allowed === undefined) return [{ path, what: `packages/${from} has no line in MAY_IMPORT` }];
    return allowed.includes(to) ? [] : [{ path, what: `${from} must not import ${specifier}` }];
  });
}

export function fences(tree: Tree): Finding[] {
  return allImports(tree).flatMap(({ path, specifier }) => {
    if (!specifier.startsWith('.')) return [];
    const target = posix.join(posix.dirname(path), specifier);
    // tools is no package, so there is no other way to name it or for it to name others.
    if (folderOf(target) === folderOf(path) || path.startsWith('tools/')) return [];
    return [{ path, what: `${specifier} leaves the package: import it by the name of its package` }];
  });
}

export function confined(tree: Tree): Finding[] {
  const speakers = sources(tree)
    // This folder names it to forbid it.
    .filter(([path]) => !path.startsWith(ETCD_PROTOCOL.to) && !path.startsWith('tools/tidy/'))
    .filter(([, text]) => ETCD_PROTOCOL.what.test(codeOf(text)))
    .map(([path]) => ({ path, what: `only ${ETCD_PROTOCOL.to} may speak etcd's protocol` }));
  const imports = allImports(tree).flatMap(({ path, specifier }) => {
    const rule = CONFINED.find(({ what }) => what.test(specifier));
    if (rule === undefined || rule.to.some((folder) => path.startsWith(folder))) return [];
    return [{ path, what: `only ${rule.to.join(' and ')} may import ${specifier}` }];
  });
  return [...speakers, ...imports];
}

export function pure(tree: Tree): Finding[] {
  return sources(tree)
    .filter(([path]) => path.startsWith('packages/scheduler/src/') || /\/(plan|state)\.ts$/.test(path))
    .filter(([path]) => !isTest(path))
    .flatMap(([path, text]) => {
      const imports = importsOf(path, text).filter(
        ({ specifier, typeOnly }) => specifier.startsWith('node:') && !typeOnly,
      );
      const code = codeOf(text);
      return [
        ...imports.map(({ specifier }) => ({ path, what: `imports ${specifier}` })),
        ...IMPURE.filter(({ what }) => what.test(code)).map(({ name }) => ({ path, what: name })),
      ];
    });
}

export function cycles(tree: Tree): Finding[] {
  const edges = new Map<string, Map<string, string>>();
  for (const { path, specifier } of allImports(tree)) {
    const to = /^@busbar\/([^/]+)/.exec(specifier)?.[1];
    const from = folderOf(path).replace('packages/', '');
    if (to === undefined || from === '' || from === to) continue;
    const targets = edges.get(from) ?? new Map<string, string>();
    if (!targets.has(to)) targets.set(to, path);
    edges.set(from, targets);
  }
  const found: Finding[] = [];
  const done = new Set<string>();
  const visit = (at: string, trail: readonly string[]): void => {
    if (trail.includes(at)) {
      const loop = [...trail.slice(trail.indexOf(at)), at];
      found.push({ path: edges.get(loop.at(-2) ?? '')?.get(at) ?? '', what: `closes the circle ${loop.join(' → ')}` });
      return;
    }
    if (done.has(at)) return;
    for (const next of edges.get(at)?.keys() ?? []) visit(next, [...trail, at]);
    done.add(at);
  };
  for (const start of edges.keys()) visit(start, []);
  return found;
}
