// SPDX-License-Identifier: Apache-2.0
// Running other programs: always an argument vector, always a deadline.
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

export interface RunOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Returns a non-zero exit instead of throwing. */
  readonly mayFail?: boolean;
}

export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly result: RunResult;
  constructor(argv: readonly string[], why: string, result: RunResult) {
    const said = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-8).join('\n');
    super(`${argv.join(' ')}: ${why}${said === '' ? '' : `\n${said}`}`);
    this.result = result;
  }
}

/** Long enough for any single step of a lab on a busy machine; what may take longer says so. */
const DEFAULT_TIMEOUT_MS = 60_000;
/** A guest's console log or a runaway program must not fill our memory. */
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const [program, ...args] = argv;
  if (program === undefined) throw new TypeError('run: empty argument vector');
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  return await new Promise<RunResult>((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...options.env } });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    let bytes = 0;
    let why: string | undefined;
    const stop = (reason: string): void => {
      why = reason;
      child.kill('SIGKILL');
    };
    const timer = setTimeout(() => stop(`no end after ${timeoutMs / 1000} s`), timeoutMs);
    const collect = (into: Buffer[]) => (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_OUTPUT_BYTES) stop('too much output');
      else into.push(chunk);
    };
    child.stdout.on('data', collect(out));
    child.stderr.on('data', collect(err));
    // A program that ends without reading its input is no error of ours; its exit code tells.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
    child.on('error', (cause) => {
      clearTimeout(timer);
      const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
      reject(
        missing ? new Error(`program "${program}" is not installed (see tools/debian-packages.txt)`, { cause }) : cause,
      );
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      // As shells do, so that callers have one number.
      const result = {
        code: code ?? 128 + signalNumber(signal),
        stdout: Buffer.concat(out).toString(),
        stderr: Buffer.concat(err).toString(),
      };
      if (why !== undefined) reject(new CommandError(argv, why, result));
      else if (result.code !== 0 && options.mayFail !== true)
        reject(new CommandError(argv, `exit ${result.code}`, result));
      else resolve(result);
    });
  });
}

export function signalNumber(signal: NodeJS.Signals | null): number {
  switch (signal) {
    case 'SIGHUP':
      return 1;
    case 'SIGINT':
      return 2;
    case 'SIGQUIT':
      return 3;
    case 'SIGABRT':
      return 6;
    case 'SIGKILL':
      return 9;
    case 'SIGSEGV':
      return 11;
    case 'SIGTERM':
      return 15;
    default:
      return 0;
  }
}

export class DeadlineError extends Error {
  override readonly name = 'DeadlineError';
}

/**
 * Asks `probe` until it gives a value. While it has none it gives the reason (a string in `waiting`), so that the error
 * at the deadline says what was missing instead of "timed out".
 */
export async function until<T>(
  what: string,
  probe: () =>
    | Promise<{ readonly value: T } | { readonly waiting: string }>
    | { readonly value: T }
    | { readonly waiting: string },
  options: { readonly timeoutMs: number; readonly everyMs?: number },
): Promise<T> {
  const end = performance.now() + options.timeoutMs;
  for (;;) {
    const answer = await probe();
    if ('value' in answer) return answer.value;
    if (performance.now() >= end)
      throw new DeadlineError(`${what}: not after ${options.timeoutMs / 1000} s; ${answer.waiting}`);
    await sleep(options.everyMs ?? 200);
  }
}
