// SPDX-License-Identifier: Apache-2.0
// A test file that no project of vitest.config.ts includes would never run and never be missed.
import { globSync } from 'node:fs';
import { ROOT } from './process.ts';
import type { TestOutcome } from './test-events.ts';

export function testFiles(): readonly string[] {
  return globSync('{packages,deploy,tools,e2e,bench}/**/*.test.ts', {
    cwd: ROOT,
    exclude: (name) => name === 'node_modules' || name === 'dist',
  });
}

/** Only `npm run attack` runs it. */
export function isLong(file: string): boolean {
  return file.endsWith('.attack-long.test.ts');
}

/** A failure for each test file of the tree that was in no run. */
export function unplannedFiles(run: ReadonlySet<string>): readonly TestOutcome[] {
  return testFiles()
    .filter((file) => !run.has(file) && !isLong(file))
    .map((file) => ({
      file,
      name: 'never ran',
      state: 'failed',
      ms: 0,
      message: 'no project of vitest.config.ts includes it',
    }));
}
