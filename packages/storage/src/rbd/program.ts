// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { assert } from '@busbar/core/assert';
import { type Clock, sleep } from '@busbar/core/clock/clock';
import { storageError } from '../errors.ts';

/** The end of what a program says; its reason is in the last lines. */
const STDERR_BYTES = 2000;

/**
 * One of Ceph's programs reading data on its standard input. It dies with the thread that started it
 * (setpriv of util-linux), so that no import goes on under the repeat of a saga.
 */
export class InputProgram {
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #clock: Clock;
  readonly #exited: Promise<number>;
  /** The write that the program has not taken yet: its end fails it. One handler for all, for an import makes millions of writes. */
  #waiting: ((code: number) => void) | null = null;
  #stderr = '';
  #exitCode: number | null = null;

  constructor(program: string, args: readonly string[], clock: Clock) {
    this.#name = program;
    this.#clock = clock;
    this.#child = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...args], {
      stdio: ['pipe', 'ignore', 'pipe'],
      // Not ours: CEPH_ARGS, LD_PRELOAD and the like change what a program does.
      env: { PATH: process.env.PATH ?? '/usr/bin:/bin', LC_ALL: 'C' },
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_BYTES);
    });
    // Its end tells more than "broken pipe".
    this.#child.stdin?.on('error', () => {});
    this.#exited = new Promise((resolve) => {
      const ended = (code: number) => {
        this.#exitCode = code;
        this.#waiting?.(code);
        resolve(code);
      };
      this.#child.on('close', (code) => ended(code ?? -1));
      this.#child.on('error', (error) => {
        this.#stderr = error.message;
        ended(-1);
      });
    });
  }

  /** Resolves when the program has taken the data over; the buffer is free again then. One at a time. */
  write(data: Uint8Array, idleMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      assert(this.#waiting === null, 'the write before has not ended');
      if (this.#exitCode !== null) return reject(this.#failure(this.#exitCode));
      const settle = (act: () => void) => {
        if (this.#waiting !== onExit) return;
        this.#waiting = null;
        timer[Symbol.dispose]();
        act();
      };
      const onExit = (code: number) => settle(() => reject(this.#failure(code)));
      const timer = this.#clock.timer(idleMs, () => {
        settle(() => reject(storageError('storageTimeout', `${this.#name} took no data for ${idleMs} ms`)));
      });
      this.#waiting = onExit;
      this.#child.stdin?.write(data, (error) => {
        // With an error the program is about to end, which says why.
        if (!error) settle(resolve);
      });
    });
  }

  /** Ends its input and waits for it to succeed. */
  async finish(idleMs: number): Promise<void> {
    this.#child.stdin?.end();
    const code = await this.#exitWithin(idleMs);
    if (code === null) throw storageError('storageTimeout', `${this.#name} did not end within ${idleMs} ms`);
    if (code !== 0) throw this.#failure(code);
  }

  /**
   * Ends its input in mid-record, upon which it lets go of its image and fails. A killed one would
   * keep its watch on the image for 30 s, so that is only for one that does not listen.
   */
  async abort(graceMs: number): Promise<void> {
    this.#child.stdin?.end();
    if ((await this.#exitWithin(graceMs)) === null) {
      this.#child.kill('SIGKILL');
      await this.#exitWithin(graceMs);
    }
  }

  async #exitWithin(limitMs: number): Promise<number | null> {
    if (this.#exitCode !== null) return this.#exitCode;
    const over = new AbortController();
    const limit = sleep(this.#clock, limitMs, over.signal).then(
      () => null,
      () => null,
    );
    const code = await Promise.race([this.#exited, limit]);
    over.abort();
    return code;
  }

  #failure(code: number): Error {
    const said = this.#stderr.trim().split('\n').slice(-3).join('; ');
    const message = `${this.#name} failed (${code}): ${said}`;
    if (/\(28\)|\(122\)/.test(said)) return storageError('poolFull', message);
    if (/\(110\)/.test(said)) return storageError('storageTimeout', message);
    return storageError(/\(108\)|\(107\)/.test(said) ? 'storageUnavailable' : 'storageFailed', message);
  }
}
