// SPDX-License-Identifier: Apache-2.0
// What `pnpm check` and the first stage of `npm test` check.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { differences, GENERATED, PROTO, withGenerated } from './generated.ts';
import { ROOT, runProgram, seconds } from './process.ts';

/** Each is done in seconds; this is for one that hangs, also on a machine that is busy with other things. */
const TIMEOUT_MS = 300_000;
/** So many cores has the smallest machine that this must be fast on. */
const AT_ONCE = 2;

export interface CheckResult {
  readonly name: string;
  readonly state: 'passed' | 'failed' | 'skipped';
  /** Failed: what was found. Skipped: why. */
  readonly message: string;
  readonly ms: number;
}

type Verdict = Pick<CheckResult, 'state' | 'message'>;
interface Check {
  readonly name: string;
  readonly run: () => Promise<Verdict>;
}

const PASSED: Verdict = { state: 'passed', message: '' };

export const CHECKS: readonly Check[] = [
  program('format', 'biome', ['check', '--linter-enabled=false', '--reporter=concise', '--max-diagnostics=100', '.']),
  program('lint', 'biome', ['lint', '--error-on-warnings', '--diagnostic-level=warn', '--max-diagnostics=200', '.']),
  program('lint with types', 'oxlint', ['--type-aware', '--deny-warnings']),
  program('types', 'tsc', ['--project', '.']),
  program('proto lint', 'buf', ['lint'], PROTO),
  { name: 'proto compatible', run: protoCompatible },
  { name: 'generated code', run: generatedUpToDate },
];

/** The longest one first: with two at a time it decides when all are done. */
export const UNIT_TESTS: Check = program('unit tests', 'vitest', ['run', '--project', 'unit', '--reporter', 'minimal']);

export async function runChecks(
  checks: readonly Check[],
  onResult: (result: CheckResult) => void,
): Promise<readonly CheckResult[]> {
  const waiting = [...checks];
  const results: CheckResult[] = [];
  const worker = async (): Promise<void> => {
    for (let check = waiting.shift(); check !== undefined; check = waiting.shift()) {
      const startMs = performance.now();
      const verdict = await check.run().catch((error: Error): Verdict => ({ state: 'failed', message: error.message }));
      const result = { name: check.name, ms: performance.now() - startMs, ...verdict };
      results.push(result);
      onResult(result);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return results;
}

export function checkLine({ name, state, message, ms }: CheckResult): string {
  const mark = { passed: 'ok  ', failed: 'FAIL', skipped: 'skip' }[state];
  const why = state === 'skipped' ? `  (${message})` : '';
  return `${mark}  ${name.padEnd(18)} ${seconds(ms).padStart(7)}${why}`;
}

function program(name: string, command: string, args: readonly string[], cwd = ROOT): Check {
  return {
    name,
    run: async () => {
      const result = await runProgram(command, args, { cwd, timeoutMs: TIMEOUT_MS });
      if (result.ok) return PASSED;
      return { state: 'failed', message: `${command} ${args.join(' ')}: ${result.how}\n${result.output.trim()}` };
    },
  };
}

async function generatedUpToDate(): Promise<Verdict> {
  return await withGenerated((fresh) => {
    const found = differences(fresh, GENERATED);
    if (found.length === 0) return PASSED;
    const list = found.map(({ path, what }) => `  packages/proto/src/gen/${path}: ${what}`).join('\n');
    return { state: 'failed', message: `run pnpm generate:\n${list}` };
  });
}

/**
 * Compares the .proto files with those of the commit before: on main its predecessor, elsewhere where the branch left
 * main. A commit that breaks the API on purpose says so in its message: `API-break: <why>`.
 */
async function protoCompatible(): Promise<Verdict> {
  const skipped = (message: string): Verdict => ({ state: 'skipped', message });
  const head = await git(['rev-parse', 'HEAD']);
  if (head === null) return skipped('no git history here');
  const fork = (await git(['merge-base', 'HEAD', 'main'])) ?? head;
  const base = fork === head ? await git(['rev-parse', '--verify', '--quiet', 'HEAD~1']) : fork;
  if (base === null) return skipped('no earlier commit to compare with');
  if ((await git(['ls-tree', '-r', '--name-only', base, 'packages/proto/buf.yaml'])) === '') {
    return skipped(`the commit before (${base.slice(0, 8)}) has no protos`);
  }
  const why = /^API-break: *(.+)$/m.exec((await git(['log', '--format=%B', `${base}..HEAD`])) ?? '')?.[1];
  if (why !== undefined) return skipped(`the API is broken on purpose: ${why}`);

  const scratch = mkdtempSync(join(tmpdir(), 'busbar-breaking-'));
  try {
    const archive = join(scratch, 'base.tar');
    const old = join(scratch, 'base');
    mkdirSync(old);
    const made = await git(['archive', '--output', archive, base, 'packages/proto']);
    if (made === null) return skipped(`the commit before (${base.slice(0, 8)}) is not in this clone`);
    const unpacked = await runProgram('tar', ['-xf', archive, '-C', old], { timeoutMs: TIMEOUT_MS });
    if (!unpacked.ok) throw new Error(`tar: ${unpacked.how}\n${unpacked.output}`);
    const against = ['breaking', '--against', join(old, 'packages/proto')];
    const result = await runProgram('buf', against, { cwd: PROTO, timeoutMs: TIMEOUT_MS });
    if (result.ok) return PASSED;
    const help = 'If it is meant, the commit message says why: "API-break: <why>".';
    return {
      state: 'failed',
      message: `compared with ${base.slice(0, 8)}: ${result.how}\n${result.output.trim()}\n${help}`,
    };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** What git prints; null when it fails. */
async function git(args: readonly string[]): Promise<string | null> {
  const result = await runProgram('git', args, { timeoutMs: TIMEOUT_MS });
  return result.ok ? result.output.trim() : null;
}
