// SPDX-License-Identifier: Apache-2.0
// For each rule trees that break it and trees that come close and do not: a rule that cannot fail is a defect, one that
// fails on right code as well. Every key of RULES has to be here, which the type sees to.
import type { RuleName } from './rules.ts';

interface Example {
  readonly bad: readonly Files[];
  readonly good: readonly Files[];
}
type Files = Readonly<Record<string, string>>;

// Put together here, so that no search of the repository for these words finds this file.
const SKIP = ['it', 'skip'].join('.');
const SKIP_IF = ['describe', 'skipIf'].join('.');
const ONLY = ['test', 'concurrent', 'only'].join('.');
const HOME = `/${'root'}/x`;
const REGISTRY = ['registry', 'example', 'org'].join('.');
const SPDX = 'SPDX-License-Identifier: Apache-2.0';

const json = (value: object): string => JSON.stringify(value);
const pkg = (name: string, dependencies: object): string => json({ name: `@busbar/${name}`, dependencies });
const catalog = (lines: string): string =>
  `packages:\n  - packages/*\n\ncatalog:\n${lines}\nallowBuilds:\n  x: false\n`;
const page = (row: string): string =>
  `# D\n\n## Node modules\n\n| a | b | c | d | e |\n|---|---|---|---|---|\n${row}\n`;

export const EXAMPLES: Readonly<Record<RuleName, Example>> = {
  'imports go one way': {
    bad: [
      { 'packages/core/src/a.ts': "import { x } from '@busbar/agent/x';\n" },
      { 'packages/agent/src/a.ts': "import type { X } from '@busbar/controller/x';\n" },
      { 'packages/cli/src/a.ts': "const x = await import('@busbar/agent/x');\n" },
      { 'packages/scheduler/src/a.ts': "import {\n  a,\n  b,\n} from '@busbar/storage/x';\n" },
      { 'packages/newcomer/src/a.ts': "export { a } from '@busbar/core/a';\n" },
    ],
    good: [
      { 'packages/agent/src/a.ts': "import { x } from '@busbar/storage/x';\nimport '@busbar/agent/self';\n" },
      { 'deploy/a.ts': "import { x } from '@busbar/controller/x';\n" },
      { 'packages/core/src/a.ts': "// import { x } from '@busbar/agent/x';\n" },
    ],
  },
  'packages are entered by name': {
    bad: [
      { 'packages/agent/src/a.ts': "import { x } from '../../core/src/result.ts';\n" },
      { 'e2e/a.ts': "import { x } from '../deploy/lab/lab.ts';\n" },
    ],
    good: [
      { 'packages/agent/src/a/b.ts': "import { x } from '../c.ts';\n" },
      { 'tools/a.ts': "import { x } from '../deploy/lab/lab.ts';\n" },
    ],
  },
  'native code and etcd are confined': {
    bad: [
      { 'packages/agent/src/libvirt/x.ts': "import koffi from 'koffi';\n" },
      { 'packages/controller/src/leader/x.ts': "const path = '/etcdserverpb.KV/Range';\n" },
      { 'packages/controller/src/api/x.ts': "import type { X } from '@busbar/proto/gen/etcdserverpb/rpc';\n" },
    ],
    good: [
      { 'packages/agent/src/libvirt/ffi/x.ts': "import koffi from 'koffi';\n" },
      { 'packages/controller/src/store/etcd/x.ts': "const path = '/etcdserverpb.KV/Range';\n" },
      { 'packages/controller/src/leader/x.ts': "import { EtcdStore } from '../store/etcd.ts'; // etcdserverpb\n" },
    ],
  },
  'no circles between packages': {
    bad: [
      {
        'deploy/a.ts': "import { x } from '@busbar/e2e/x';\n",
        'e2e/b.ts': "import { x } from '@busbar/bench/x';\n",
        'bench/c.ts': "import { x } from '@busbar/deploy/x';\n",
      },
    ],
    good: [
      {
        'deploy/a.ts': "import { x } from '@busbar/core/x';\n",
        'e2e/b.ts': "import { x } from '@busbar/core/x';\nimport '@busbar/deploy/x';\n",
      },
    ],
  },
  'the core is pure': {
    bad: [
      { 'packages/scheduler/src/place.ts': "import { readFileSync } from 'node:fs';\n" },
      { 'packages/controller/src/vm/plan.ts': 'const now = Date.now();\n' },
      { 'packages/controller/src/vm/state.ts': 'const id = Math.random();\n' },
      { 'packages/agent/src/reconcile/plan.ts': 'const t = performance.now();\n' },
      { 'packages/scheduler/src/rank.ts': 'setTimeout(() => {}, 1);\n' },
      { 'packages/scheduler/src/rank.ts': 'const x = process.env.X;\n' },
    ],
    good: [
      {
        'packages/scheduler/src/place.ts':
          "// not Date.now(): the caller's clock\nimport type { X } from 'node:net';\n",
      },
      { 'packages/scheduler/src/place.test.ts': 'const now = Date.now();\n' },
      { 'packages/controller/src/vm/execute.ts': 'const now = Date.now();\n' },
    ],
  },
  'what is imported is declared': {
    bad: [
      { 'packages/core/package.json': pkg('core', {}), 'packages/core/src/a.ts': "import { z } from 'zod/v4';\n" },
      {
        'package.json': json({ devDependencies: { vitest: 'catalog:' } }),
        'packages/core/package.json': pkg('core', {}),
        'packages/core/src/a.ts': "import { it } from 'vitest';\n",
      },
    ],
    good: [
      {
        'package.json': json({ devDependencies: { vitest: 'catalog:' } }),
        'packages/core/package.json': pkg('core', { zod: 'catalog:' }),
        'packages/core/src/a.ts': "import { z } from 'zod/v4';\nimport { x } from '@busbar/core/x';\n",
        'packages/core/src/a.test.ts': "import { it } from 'vitest';\n",
      },
    ],
  },
  'what is declared is imported': {
    bad: [
      {
        'packages/core/package.json': pkg('core', { zod: 'catalog:', yaml: 'catalog:' }),
        'packages/core/src/a.ts': "import { z } from 'zod';\n",
      },
      { 'package.json': json({ devDependencies: { oxlint: 'catalog:' } }), 'tools/lib/checks.ts': "run('biome');\n" },
    ],
    good: [
      { 'packages/core/package.json': pkg('core', { zod: 'catalog:' }) },
      { 'package.json': json({ devDependencies: { oxlint: 'catalog:' } }), 'tools/lib/checks.ts': "run('oxlint');\n" },
      {
        'packages/cli/package.json': json({ name: '@busbar/cli' }),
        'deploy/package.json': pkg('deploy', { '@busbar/cli': 'workspace:*' }),
        'deploy/a.ts': "const BIN = createRequire(import.meta.url).resolve('@busbar/cli/bin');\n",
      },
    ],
  },
  'versions stand in the catalog': {
    bad: [
      { 'packages/core/package.json': pkg('core', { zod: '^4.0.0' }) },
      { 'pnpm-workspace.yaml': catalog('  zod: 4.6.7\n'), 'packages/core/package.json': pkg('core', {}) },
    ],
    good: [
      {
        'pnpm-workspace.yaml': catalog('  "zod": 4.6.7\n'),
        'packages/core/package.json': pkg('core', { zod: 'catalog:', '@busbar/proto': 'workspace:*' }),
      },
    ],
  },
  'dependencies are explained': {
    bad: [
      { 'pnpm-workspace.yaml': catalog('  zod: 4.6.7\n') },
      { 'pnpm-workspace.yaml': catalog('  zod: 4.6.7\n'), 'docs/dependencies.md': page('') },
      {
        'pnpm-workspace.yaml': catalog('  zod: 4.6.7\n'),
        'docs/dependencies.md': page('| `zod` | 4.6.6 | MIT | x | y |'),
      },
      {
        'pnpm-workspace.yaml': catalog('  zod: 4.6.7\n'),
        'docs/dependencies.md': page('| `zod` | 4.6.7 | MIT | x |  |'),
      },
      { 'pnpm-workspace.yaml': catalog(''), 'docs/dependencies.md': page('| `zod` | 4.6.7 | MIT | x | y |') },
    ],
    good: [
      {
        'pnpm-workspace.yaml': catalog('  "@a/b": ^1.0.0\n'),
        'docs/dependencies.md': page('| `@a/b` | ^1.0.0 | MIT | x | y |'),
      },
    ],
  },
  'Debian packages are explained': {
    bad: [{ 'tools/debian-packages.txt': 'tini # init\n', 'docs/dependencies.md': '# D\n' }],
    good: [
      { 'tools/debian-packages.txt': '# the lab\ntini # init\n\n', 'docs/dependencies.md': '| `tini` | init |\n' },
    ],
  },
  'every file carries its licence': {
    bad: [
      { 'packages/core/src/a.ts': 'export {};\n' },
      { 'deploy/a.sh': '#!/bin/sh\nset -e\n' },
      { 'packages/proto/busbar/v1/a.proto': 'syntax = "proto3";\n' },
    ],
    good: [
      { 'packages/core/src/a.ts': `// ${SPDX}\n`, 'deploy/a.sh': `#!/bin/sh\n# ${SPDX}\n` },
      { 'packages/proto/src/gen/a.ts': '// Code generated\n' },
    ],
  },
  'files are short': {
    bad: [{ 'packages/core/src/a.ts': 'x;\n'.repeat(401) }],
    good: [{ 'packages/core/src/a.ts': 'x;\n'.repeat(400), 'packages/proto/src/gen/a.ts': 'x;\n'.repeat(999) }],
  },
  'only tools for people print': {
    bad: [{ 'packages/agent/src/a.ts': "console.log('x');\n" }, { 'e2e/a.ts': "console.error('x');\n" }],
    good: [{ 'packages/cli/src/a.ts': "console.log('x');\n", 'packages/core/src/a.ts': '// no console.log here\n' }],
  },
  'no test is left out': {
    bad: [
      { 'packages/core/src/a.test.ts': `${SKIP}('x', () => {});\n` },
      { 'e2e/a.e2e.test.ts': `${SKIP_IF}(!root)('x', () => {});\n` },
      { 'packages/core/src/a.test.ts': `${ONLY}('x', () => {});\n` },
    ],
    good: [{ 'packages/core/src/a.test.ts': "it('x', (context) => context.skip('needs KVM'));\n" }],
  },
  'no place of one machine': {
    bad: [{ 'docs/a.md': `see ${HOME}\n` }, { '.npmrc': `registry=https://${REGISTRY}/\n` }],
    good: [{ 'docs/a.md': 'see docs/work/a and ~/root/b, the registry of labs, registry.test.ts\n' }],
  },
  'links in the documentation resolve': {
    bad: [
      { 'docs/a.md': '[b](b.md)\n' },
      { 'docs/a.md': '[b](b.md#gone)\n', 'docs/b.md': '# Here\n' },
      { 'README.md': '[here](#gone)\n' },
    ],
    good: [
      {
        'docs/a.md': '[b](b.md#here-it-is) [c](../packages/core) `[x](y)` [z](https://example.org)\n',
        'docs/b.md': '# Here it is\n',
        'packages/core/README.md': '',
      },
    ],
  },
  'code lies where tools look': {
    bad: [{ 'scripts/a.ts': '' }, { 'a.mjs': '' }],
    good: [{ 'tools/a.ts': '', 'vitest.config.ts': '', 'packages/cli/bin/x.mjs': '' }],
  },
};
