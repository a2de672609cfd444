// SPDX-License-Identifier: Apache-2.0
// Members of a test cluster as processes of this machine. Nothing of them outlives the test process.
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';

/** What the members run in. `directory` of the cluster has the same path for its members. */
export interface EtcdRuntime {
  /** Runs `etcd ARGS` as the member `name`; after a kill once more, on its old data. */
  start(name: string, args: readonly string[]): Promise<void>;
  /** Returns when the member certainly does nothing any more. */
  freeze(name: string): Promise<void>;
  /** Does no harm to a member that is not frozen. */
  thaw(name: string): Promise<void>;
  /** As `kill -9`. Does no harm to a member that does not run. */
  kill(name: string): Promise<void>;
  /** For the message of a failure: whether it runs, and the last words of its log. */
  describe?(name: string): Promise<string>;
  /** Ends what is left. */
  stop(): Promise<void>;
}

const FREEZE_DEADLINE_MS = 15_000;
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class EtcdProcesses implements EtcdRuntime {
  readonly #directory: string;
  readonly #command: readonly string[];
  readonly #children = new Map<string, ChildProcess>();

  constructor(directory: string) {
    const etcd = findProgram('etcd');
    // A conformance suite that skips itself proves nothing: it fails.
    if (etcd === null) {
      throw new Error(
        'etcd is not installed, but the conformance suite needs it (Debian: apt-get install etcd-server)',
      );
    }
    // The kernel ends etcd even when the test process is killed; elsewhere the exit handler has to do.
    const setpriv = findProgram('setpriv');
    this.#command = setpriv === null ? [etcd] : [setpriv, '--pdeathsig', 'KILL', etcd];
    this.#directory = directory;
  }

  async start(name: string, args: readonly string[]): Promise<void> {
    const log = await open(join(this.#directory, `${name}.log`), 'a');
    try {
      const [program = '', ...first] = this.#command;
      const child = spawn(program, [...first, ...args], {
        stdio: ['ignore', log.fd, log.fd],
        env: { PATH: process.env.PATH },
      });
      running.add(child);
      child.once('exit', () => running.delete(child));
      child.once('error', () => running.delete(child));
      this.#children.set(name, child);
    } finally {
      await log.close();
    }
  }

  /** The process id of a member that runs. */
  pid(name: string): number {
    const pid = this.#children.get(name)?.pid;
    if (pid === undefined) throw new Error(`etcd member ${name} does not run`);
    return pid;
  }

  /** Returns when the kernel has stopped every thread: on a busy machine that takes a while. */
  async freeze(name: string): Promise<void> {
    const tasks = `/proc/${this.pid(name)}/task`;
    process.kill(this.pid(name), 'SIGSTOP');
    const runs = async () => {
      const states = await Promise.all(
        (await readdir(tasks)).map((task) => readFile(join(tasks, task, 'stat'), 'utf8').catch(() => ') T')),
      );
      return states.some((stat) => !stat.slice(stat.lastIndexOf(')')).startsWith(') T'));
    };
    for (const endMs = systemClock.nowMs() + FREEZE_DEADLINE_MS; await runs(); ) {
      if (systemClock.nowMs() > endMs) throw new Error(`etcd member ${name} does not freeze`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  async thaw(name: string): Promise<void> {
    this.#children.get(name)?.kill('SIGCONT');
  }

  async kill(name: string): Promise<void> {
    const child = this.#children.get(name);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await exited;
  }

  async describe(name: string): Promise<string> {
    const child = this.#children.get(name);
    const log = await readFile(join(this.#directory, `${name}.log`), 'utf8').catch(() => '');
    const state = child?.exitCode ?? child?.signalCode ?? `runs as ${child?.pid}`;
    return `${name} (${state}): ${log.trimEnd().split('\n').slice(-4).join('\n').slice(-1_500)}`;
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#children.keys()].map((name) => this.kill(name)));
  }
}

export function findProgram(name: string): string | null {
  for (const directory of (process.env.PATH ?? '').split(':')) {
    const program = join(directory, name);
    try {
      accessSync(program, constants.X_OK);
      return program;
    } catch {
      // Not here.
    }
  }
  return null;
}
