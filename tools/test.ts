// SPDX-License-Identifier: Apache-2.0
// `npm test`: checks, unit, conformance, container and end-to-end tests, with one closing line over all of them:
// `N passed, N failed, N skipped`. Nothing is printed after it.
//
//   npm test -- [--only check|unit|conformance|container|e2e|attack]…
//   npm run attack: the attacks alone, the long ones too
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { CHECKS, checkLine, runChecks } from './lib/checks.ts';
import { evidenceIn, unproven } from './lib/evidence.ts';
import { clearTestLabs } from './lib/labs.ts';
import { endWithChildren, ROOT, runProgram, seconds } from './lib/process.ts';
import { type TestEvent, type TestOutcome, TestRun } from './lib/test-events.ts';
import { isLong, testFiles, unplannedFiles } from './lib/test-files.ts';

const RESULTS = join(ROOT, '.cache/test');
const MINUTE_MS = 60_000;

/** Limits of the vitest runs, for one that hangs; each check has its own. */
const LIMITS_MS = {
  unit: 8 * MINUTE_MS,
  // Some 11 minutes; half as much again where the machine is slow.
  conformance: 20 * MINUTE_MS,
  container: 10 * MINUTE_MS,
  e2e: 18 * MINUTE_MS,
  attack: 10 * MINUTE_MS,
} as const;
type TestStage = keyof typeof LIMITS_MS;
const ALL = ['check', ...(Object.keys(LIMITS_MS) as TestStage[])] as const;
type Stage = (typeof ALL)[number];

const { values } = parseArgs({
  options: { only: { type: 'string', multiple: true }, long: { type: 'boolean', default: false } },
});
const only = values.only ?? ALL;
const unknown = only.filter((name) => !ALL.includes(name as Stage));
if (unknown.length > 0) {
  console.error(`test: no stage ${unknown.join(', ')}; there are ${ALL.join(', ')}`);
  process.exit(2);
}

endWithChildren();
const startMs = performance.now();
rmSync(RESULTS, { recursive: true, force: true });
mkdirSync(RESULTS, { recursive: true });
const stages = ALL.filter((stage) => only.includes(stage));

const outcomes: TestOutcome[] = [];
if (stages.includes('e2e') || stages.includes('attack'))
  outcomes.push(...(await clearTestLabs((line) => console.log(line))));
const filesRun = new Set<string>();
for (const stage of stages) {
  if (stage === 'check') outcomes.push(...(await checkStage()));
  else if (stage === 'container' && process.env['BUSBAR_TEST_CONTAINERS'] === 'off') outcomes.push(...leftOut(stage));
  else outcomes.push(...(await testStage(stage)));
}
if (stages.length === ALL.length) {
  outcomes.push(...unplannedFiles(filesRun), ...unprovenThreats());
}
report(outcomes);

async function checkStage(): Promise<readonly TestOutcome[]> {
  console.log('check');
  const results = await runChecks(CHECKS, (result) => console.log(`  ${checkLine(result)}`));
  return results.map(({ name, state, message, ms }) => ({ file: '', name: `check: ${name}`, state, message, ms }));
}

/** Only when it is asked for: where no engine can be started, the stage fails and says so. */
function leftOut(stage: TestStage): readonly TestOutcome[] {
  console.log(`${stage}\n  skip  BUSBAR_TEST_CONTAINERS=off`);
  const files = testFiles().filter((file) => file.endsWith(`.${stage}.test.ts`));
  for (const file of files) filesRun.add(file);
  return files.map((file) => ({ file, name: 'all', state: 'skipped', ms: 0, message: 'BUSBAR_TEST_CONTAINERS=off' }));
}

async function testStage(stage: TestStage): Promise<readonly TestOutcome[]> {
  console.log(stage);
  const run = new TestRun();
  const perFile = new Map<string, { passed: number; failed: number; skipped: number }>();
  const show = (event: TestEvent): void => {
    run.take(event);
    if (event.event === 'test') {
      const counts = perFile.get(event.file) ?? { passed: 0, failed: 0, skipped: 0 };
      counts[event.state]++;
      perFile.set(event.file, counts);
      // One end-to-end test may take minutes: show each. Elsewhere only what is wrong.
      if (event.state === 'failed' || stage === 'e2e' || stage === 'attack') {
        const mark = { passed: 'ok  ', failed: 'FAIL', skipped: 'skip' }[event.state];
        console.log(`  ${mark}  ${event.name} (${seconds(event.ms)})`);
      }
    }
    if (event.event === 'file' && stage !== 'unit') {
      const { passed, failed } = perFile.get(event.file) ?? { passed: 0, failed: 0 };
      const tally = failed === 0 ? `${passed} tests` : `${failed} of ${passed + failed} tests failed`;
      console.log(`  ${failed === 0 ? 'ok  ' : 'FAIL'}  ${event.file}: ${tally} (${seconds(event.ms)})`);
    }
  };
  const ended = await runProgram(
    'vitest',
    [
      ...['run', '--project', stage, '--passWithNoTests'],
      ...['--reporter', 'default', '--reporter', 'json', '--outputFile.json', join(RESULTS, `${stage}.json`)],
      ...['--reporter', join(import.meta.dirname, 'lib/vitest-reporter.ts')],
    ],
    {
      timeoutMs: values.long ? 4 * LIMITS_MS[stage] : LIMITS_MS[stage],
      logFile: join(RESULTS, `${stage}.log`),
      // What `npm run check` tries a few times is tried as often as it is meant to be.
      env: { BUSBAR_THOROUGH: '1', ...(values.long ? { BUSBAR_ATTACK: 'all' } : {}) },
      onMessage: (line) => show(JSON.parse(line) as TestEvent),
    },
  );
  for (const file of run.files) filesRun.add(file);
  const outcomes = run.conclude(stage, ended);
  const count = (state: TestOutcome['state']): number => outcomes.filter((outcome) => outcome.state === state).length;
  const mark = count('failed') > 0 ? 'FAIL' : 'ok  ';
  const files = run.files.size === 0 ? 'no test files yet' : `${run.files.size} files, ${count('passed')} passed`;
  console.log(
    `  ${mark}  ${stage}: ${files}, ${count('failed')} failed, ${count('skipped')} skipped (${seconds(ended.ms)})`,
  );
  return outcomes;
}

/** What the threat model cites must have run here and passed. Attacks that take long are judged by `npm run attack`. */
function unprovenThreats(): readonly TestOutcome[] {
  const text = readFileSync(join(ROOT, 'docs/security/threat-model.md'), 'utf8');
  return unproven(evidenceIn(text), outcomes, (file) => values.long || !isLong(file));
}

function report(outcomes: readonly TestOutcome[]): void {
  const of = (state: TestOutcome['state']): readonly TestOutcome[] =>
    outcomes.filter((outcome) => outcome.state === state);
  const title = ({ file, name }: TestOutcome): string => (file === '' ? name : `${file} > ${name}`);
  const [passed, failed, skipped] = [of('passed'), of('failed'), of('skipped')];
  if (skipped.length > 0) console.log('\nskipped:');
  for (const outcome of skipped) console.log(`  ${title(outcome)}: ${outcome.message || 'no reason given'}`);
  if (failed.length > 0) console.log('\nfailed:');
  for (const outcome of failed) {
    console.log(`  ${title(outcome)}`);
    for (const line of outcome.message.split('\n').slice(0, 60)) console.log(`      ${line}`);
  }
  console.log(`\n${seconds(performance.now() - startMs)}; logs and JSON reports: ${relative(ROOT, RESULTS)}/`);
  const exitCode = failed.length > 0 || passed.length === 0 ? 1 : 0;
  // Written whole before the exit, also into a pipe.
  process.stdout.write(`${passed.length} passed, ${failed.length} failed, ${skipped.length} skipped\n`, () =>
    process.exit(exitCode),
  );
}
