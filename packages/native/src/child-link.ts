// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, fork } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Clock } from '@busbar/core/clock/clock';
import type { ToChild, ToParent } from './protocol.ts';

/** Longest line of the child's output that is kept; a C library's assertion fits. */
const OUTPUT_LINE_BYTES = 2000;

export interface ChildLinkOptions {
  readonly entry: URL;
  readonly env: Readonly<Record<string, string>>;
  readonly onMessage: (message: ToParent) => void;
  /** Called once, in words that follow the child's name: `ended with code 1`. */
  readonly onExit: (how: string) => void;
  readonly onOutput: (line: string) => void;
}

/** One child process and its channel. Nothing in it keeps this process alive. */
export class ChildLink {
  readonly #child: ChildProcess;
  readonly #gone: Promise<void>;
  #lastOutput = '';

  constructor(options: ChildLinkOptions) {
    this.#child = fork(options.entry, [], {
      serialization: 'advanced',
      // Not the parent's: an inspector port or a test runner's loader is none of the child's business.
      execArgv: [],
      env: { ...process.env, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.#child.unref();
    this.#child.channel?.unref();
    this.#child.on('message', (message) => options.onMessage(message as ToParent));
    this.#gone = new Promise((resolve) => {
      let told = false;
      const tell = (how: string) => {
        resolve();
        if (told) return;
        told = true;
        const said = this.#lastOutput === '' ? '' : `: ${this.#lastOutput}`;
        options.onExit(`${how}${said}`);
      };
      // 'close' comes after the output was read, so that the last words are in the message; but a
      // grandchild may hold the pipe, hence 'exit' tells by itself a little later.
      this.#child.on('close', (code, signal) => tell(describeExit(code, signal)));
      this.#child.on('exit', (code, signal) => setTimeout(() => tell(describeExit(code, signal)), 1000).unref());
      this.#child.on('error', (error) => tell(`could not be run (${error.message})`));
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream === null) continue;
      (stream as Socket).unref();
      stream.setEncoding('utf8');
      stream.on('data', (text: string) => {
        for (const line of text.split('\n')) {
          if (line.trim() === '') continue;
          this.#lastOutput = line.slice(0, OUTPUT_LINE_BYTES);
          options.onOutput(this.#lastOutput);
        }
      });
    }
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
  }

  get lastOutput(): string {
    return this.#lastOutput;
  }

  /** Throws when the message cannot be cloned. A channel that closed is no error here: the exit follows. */
  post(message: ToChild): void {
    if (!this.#child.connected) return;
    this.#child.send(message, () => {});
  }

  kill(): void {
    this.#child.kill('SIGKILL');
    if (this.#child.connected) this.#child.disconnect();
  }

  /** Asks the child to end and kills it after the grace time. */
  async end(clock: Clock, graceMs: number): Promise<void> {
    this.post({ t: 'close' });
    await new Promise<void>((resolve) => {
      const timer = clock.timer(graceMs, resolve);
      void this.#gone.then(() => {
        timer[Symbol.dispose]();
        resolve();
      });
    });
    this.kill();
  }
}

function describeExit(code: number | null, signal: NodeJS.Signals | null): string {
  return signal === null ? `ended with code ${code}` : `ended by ${signal}`;
}
