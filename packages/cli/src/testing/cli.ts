// SPDX-License-Identifier: Apache-2.0
/** Runs whole command lines in this process, against fake controllers. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, type Readable, Writable } from 'node:stream';
import type { TerminalInput, TerminalOutput } from '../cli/io.ts';
import { run } from '../run.ts';
import { FakeCluster, NOW } from './fake-cluster.ts';
import { FakeController } from './fake-server.ts';

export class Collector extends Writable {
  text = '';
  isTTY = false;
  columns = 100;
  #waiting: (() => void)[] = [];

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    for (const wake of this.#waiting.splice(0)) wake();
    done();
  }

  /** Resolves once the text has matched; the test's own time limit is the deadline. */
  async match(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.text)) await new Promise<void>((done) => this.#waiting.push(done));
  }
}

export interface RunningCommand {
  readonly stdin: PassThrough & TerminalInput;
  readonly stdout: Collector;
  readonly stderr: Collector;
  interrupt(): void;
  readonly ended: Promise<{ code: number; stdout: string; stderr: string }>;
}

export interface TestLab {
  readonly cluster: FakeCluster;
  readonly controllers: readonly FakeController[];
  readonly directory: string;
  start(
    args: readonly string[],
    setup?: (command: { stdin: TerminalInput; stdout: TerminalOutput }) => void,
  ): RunningCommand;
  cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }>;
  file(name: string, text: string | Buffer): string;
  end(): void;
}

export async function startLab(count = 1, env: Record<string, string> = {}): Promise<TestLab> {
  const cluster = new FakeCluster();
  const controllers = Array.from({ length: count }, (_, index) => new FakeController(`host${index + 1}`, cluster));
  for (const controller of controllers) await controller.start();
  const directory = mkdtempSync(join(tmpdir(), 'busbar-cli-'));
  const file = (name: string, text: string | Buffer) => {
    writeFileSync(join(directory, name), text);
    return join(directory, name);
  };
  const endpoints = controllers.map(({ address }) => `"${address}"`).join(', ');
  const config = file(
    'config.yaml',
    `current: lab\ncontexts:\n  lab:\n    endpoints: [${endpoints}]\n    plaintext: true\n`,
  );
  const start: TestLab['start'] = (args, setup) => {
    const stdin: PassThrough & TerminalInput = new PassThrough();
    const [stdout, stderr] = [new Collector(), new Collector()];
    setup?.({ stdin, stdout });
    let interrupt: ((signal: NodeJS.Signals) => void) | undefined;
    const code = run(args, {
      stdin: stdin as Readable,
      stdout,
      stderr,
      env: { BUSBAR_CONFIG: config, XDG_CACHE_HOME: join(directory, 'cache'), ...env },
      directory,
      home: directory,
      now: () => NOW,
      onInterrupt(callback) {
        interrupt = callback;
        return () => {};
      },
    });
    const ended = code.then((value) => ({ code: value, stdout: stdout.text, stderr: stderr.text }));
    return { stdin, stdout, stderr, ended, interrupt: () => interrupt?.('SIGINT') };
  };
  return {
    cluster,
    controllers,
    directory,
    file,
    start,
    cli: (...args) => start(args).ended,
    end() {
      for (const controller of controllers) controller.kill();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
