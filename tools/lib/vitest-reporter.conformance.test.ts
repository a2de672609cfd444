// SPDX-License-Identifier: Apache-2.0
// A run of vitest that goes wrong in every way has to be counted right: this is what `npm test` sums up from.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ROOT, runProgram } from './process.ts';
import { type TestEvent, type TestOutcome, TestRun } from './test-events.ts';

const RUN_TIMEOUT_MS = 30_000;
const cache = join(ROOT, '.cache');
mkdirSync(cache, { recursive: true });
const scratch = mkdtempSync(join(cache, 'reporter-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function outcomesOf(name: string, text: string): Promise<readonly TestOutcome[]> {
  const root = join(scratch, name);
  mkdirSync(root, { recursive: true });
  // The .cache folder is not linted, so that the words below may stand in it.
  writeFileSync(join(root, 'a.test.ts'), `import { beforeAll, describe, expect, it } from 'vitest';\n${text}\n`);
  const run = new TestRun();
  const ended = await runProgram(
    'vitest',
    ['run', '--root', root, '--reporter', join(import.meta.dirname, 'vitest-reporter.ts')],
    { timeoutMs: RUN_TIMEOUT_MS, onMessage: (line) => run.take(JSON.parse(line) as TestEvent) },
  );
  return run.conclude('stage', ended);
}

const short = (outcomes: readonly TestOutcome[]): string[] =>
  outcomes.map(({ state, name }) => `${state} ${name}`).sort();

describe('the counting of a vitest run', { timeout: RUN_TIMEOUT_MS + 5000 }, () => {
  it('counts passed, failed and skipped, with the errors and the reasons', async () => {
    const outcomes = await outcomesOf(
      'plain',
      `it('good', () => {});
       it('bad', () => expect(1).toBe(2));
       it('elsewhere', (context) => context.skip('needs KVM'));`,
    );
    expect(short(outcomes)).toEqual(['failed bad', 'passed good', 'skipped elsewhere']);
    expect(outcomes.find(({ name }) => name === 'bad')?.message).toContain('expected 1 to be 2');
    expect(outcomes.find(({ name }) => name === 'elsewhere')?.message).toBe('needs KVM');
  });

  it('counts a set-up that fails, and says so of the tests under it', async () => {
    const outcomes = await outcomesOf(
      'set-up',
      `describe('group', () => { beforeAll(() => { throw new Error('no etcd'); }); it('one', () => {}); });
       it('other', () => {});`,
    );
    expect(short(outcomes)).toEqual(['failed group', 'passed other', 'skipped group > one']);
    expect(outcomes.find(({ state }) => state === 'skipped')?.message).toBe('its set-up failed');
  });

  it('counts a file that cannot be loaded', async () => {
    const outcomes = await outcomesOf('broken', "import './gone.ts';");
    expect(short(outcomes)).toEqual(['failed the file itself']);
  });

  it('counts an error outside of any test', async () => {
    const outcomes = await outcomesOf(
      'outside',
      "it('starts it', async () => { setTimeout(() => { throw new Error('late'); }, 5); await new Promise((r) => setTimeout(r, 50)); });",
    );
    expect(short(outcomes)).toEqual(['failed error outside any test', 'passed starts it']);
  });

  it('counts a run in which every test is skipped as failed', async () => {
    const outcomes = await outcomesOf('empty', "it('a', (context) => context.skip('no'));");
    expect(short(outcomes)).toEqual(['failed stage: no test ran', 'skipped a']);
  });

  it('tells of a run that is killed what it had and what it was at', async () => {
    // Killed from inside, so that it happens when the second test runs, however slow the machine; a moment into it,
    // since vitest reports in batches of 100 ms.
    const outcomes = await outcomesOf(
      'killed',
      "it('quick', () => {});\nit('slow', () => new Promise(() => { setTimeout(() => process.kill(process.ppid, 'SIGKILL'), 1500); }));",
    );
    expect(short(outcomes)).toEqual(['failed stage: did not finish', 'passed quick']);
    expect(outcomes.find(({ state }) => state === 'failed')?.message).toMatch(
      /ended by SIGKILL while running:\n.*slow/,
    );
  });
});
