// SPDX-License-Identifier: Apache-2.0
// `pnpm check`: everything that needs no root and no daemon, in under a minute. `pnpm check --fix` formats first.
import { CHECKS, checkLine, runChecks, UNIT_TESTS } from './lib/checks.ts';
import { endWithChildren, runProgram, seconds } from './lib/process.ts';

const startMs = performance.now();
const args = process.argv.slice(2);
const unknown = args.find((arg) => arg !== '--fix');
if (unknown !== undefined) {
  console.error(`check: unknown argument ${unknown}; there is only --fix`);
  process.exit(2);
}
endWithChildren();
if (args.includes('--fix')) {
  // What it cannot fix is reported by the checks.
  await runProgram('biome', ['check', '--write', '--linter-enabled=false', '.'], { timeoutMs: 60_000 });
}
const results = await runChecks([UNIT_TESTS, ...CHECKS], (result) => console.log(checkLine(result)));
const failed = results.filter(({ state }) => state === 'failed');
for (const { name, message } of failed) console.log(`\n--- ${name}\n${message}`);
const verdict = failed.length === 0 ? 'all good' : `failed: ${failed.map(({ name }) => name).join(', ')}`;
console.log(`${failed.length === 0 ? '' : '\n'}${verdict} (${seconds(performance.now() - startMs)})`);
process.exit(failed.length === 0 ? 0 : 1);
