// SPDX-License-Identifier: Apache-2.0
/** Everything of the process that a command touches, so that tests run whole commands without one. */
import type { Readable, Writable } from 'node:stream';

export interface TerminalInput extends Readable {
  isTTY?: boolean;
  setRawMode?(raw: boolean): unknown;
}

export interface TerminalOutput extends Writable {
  isTTY?: boolean;
  columns?: number;
}

export interface Io {
  readonly stdin: TerminalInput;
  readonly stdout: TerminalOutput;
  readonly stderr: TerminalOutput;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Directory that relative paths on the command line begin from. */
  readonly directory: string;
  readonly home: string;
  /** Wall time, for ages. */
  now(): Date;
  /** Calls back on Ctrl-C, termination or hang-up; returns what ends that. */
  onInterrupt(callback: (signal: NodeJS.Signals) => void): () => void;
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export function processIo(home: string): Io {
  return {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    directory: process.cwd(),
    home,
    now: () => new Date(),
    onInterrupt(callback) {
      for (const signal of SIGNALS) process.on(signal, callback);
      return () => {
        for (const signal of SIGNALS) process.off(signal, callback);
      };
    },
  };
}
