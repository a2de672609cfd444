// SPDX-License-Identifier: Apache-2.0
// `pnpm generate`: brings packages/proto/src/gen up to date with the .proto files.
import { relative } from 'node:path';
import { apply, differences, GENERATED, withGenerated } from './lib/generated.ts';
import { ROOT } from './lib/process.ts';

await withGenerated((fresh) => {
  const changes = differences(fresh, GENERATED);
  apply(changes, fresh, GENERATED);
  for (const { path, what } of changes) console.log(`${what.padEnd(20)} ${relative(ROOT, GENERATED)}/${path}`);
  console.log(changes.length === 0 ? 'up to date' : `${changes.length} files changed`);
});
