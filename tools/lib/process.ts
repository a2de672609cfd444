// SPDX-License-Identifier: Apache-2.0
// Runs a program with a time limit that holds: in a process group of its own, killed as a whole, since what it started
// (test workers, a lab's daemons) would otherwise outlive it and disturb what comes next.
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import type { Readable } from 'node:stream';

export const ROOT = resolve(import.meta.dirname, '../..');
/** From the request to stop until SIGKILL: enough for tests to take their daemons down. */
const GRACE_MS = 15_000;
/** Of longer output the end is kept: it explains a failure. */
const KEPT_CHARS = 200_000;

export interface RunOptions {
  readonly timeoutMs: number;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Everything it prints goes into this file as well. */
  readonly logFile?: string;
  /** Called with each line that the program writes to its file descriptor 3. */
  readonly onMessage?: (line: string) => void;
}

export interface RunResult {
  readonly ok: boolean;
  /** In words: `exit code 1`, `killed after 60 s`. */
  readonly how: string;
  readonly timedOut: boolean;
  /** stdout and stderr as they came; the end of it when it is long. */
  readonly output: string;
  readonly stdout: string;
  readonly ms: number;
}

const running = new Set<ChildProcess>();

export async function runProgram(program: string, args: readonly string[], options: RunOptions): Promise<RunResult> {
  const startMs = performance.now();
  const { FORCE_COLOR: _, ...inherited } = process.env;
  const child = spawn(program, args, {
    cwd: options.cwd ?? ROOT,
    env: {
      ...inherited,
      PATH: `${join(ROOT, 'node_modules/.bin')}${delimiter}${inherited['PATH'] ?? ''}`,
      NO_COLOR: '1',
      ...options.env,
    },
    stdio: ['ignore', 'pipe', 'pipe', options.onMessage === undefined ? 'ignore' : 'pipe'],
    detached: true,
  });
  running.add(child);
  const log = options.logFile === undefined ? null : createWriteStream(options.logFile);
  let output = '';
  let stdout = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-KEPT_CHARS);
      if (stream === child.stdout) stdout = (stdout + text).slice(-KEPT_CHARS);
      log?.write(text);
    });
  }
  const messages = child.stdio[3] as Readable | null | undefined;
  if (options.onMessage !== undefined && messages) readLines(messages, options.onMessage);

  let timedOut = false;
  const timers = [
    setTimeout(() => {
      timedOut = true;
      killGroup(child, 'SIGTERM');
      timers.push(setTimeout(() => killGroup(child, 'SIGKILL'), GRACE_MS));
    }, options.timeoutMs),
  ];
  const how = await ending(child);
  for (const timer of timers) clearTimeout(timer);
  // What it started and left behind in its group, e.g. workers of a crashed test runner.
  killGroup(child, 'SIGKILL');
  running.delete(child);
  if (log !== null) await new Promise((done) => log.end(done));
  return {
    ok: how === 'exit code 0' && !timedOut,
    how: timedOut ? `killed after ${Math.round(options.timeoutMs / 1000)} s` : how,
    timedOut,
    output,
    stdout,
    ms: performance.now() - startMs,
  };
}

/** For Ctrl-C and the like: process groups of their own do not get the terminal's signals. */
export function endWithChildren(): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      for (const child of running) killGroup(child, 'SIGTERM');
      setTimeout(() => {
        for (const child of running) killGroup(child, 'SIGKILL');
        process.exit(130);
      }, 3000);
    });
  }
}

function ending(child: ChildProcess): Promise<string> {
  return new Promise((done) => {
    child.once('error', (error) => done(`could not be run: ${error.message}`));
    // 'close' waits for the output; a daemon that holds the pipe must not make us wait for ever, hence 'exit' as well.
    child.once('exit', (code, signal) => {
      const how = signal === null ? `exit code ${code}` : `ended by ${signal}`;
      child.once('close', () => done(how));
      setTimeout(() => done(how), 2000);
    });
  });
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // The group is gone, which is what was wanted.
  }
}

function readLines(stream: Readable, onLine: (line: string) => void): void {
  let rest = '';
  stream.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line !== '') onLine(line);
  });
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
