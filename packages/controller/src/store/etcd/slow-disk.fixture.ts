// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { waitUntil } from '../examine.fixture.ts';
import { findProgram } from './test-process.ts';

/**
 * From now on each flush to disk of the process takes `delayMs` longer, until disposed: strace(1) holds the system call
 * back at its entry, which is what a process sees of a slow disk. (There is no device-mapper here, and eatmydata goes the
 * other way.) Reads and writes into the page cache stay quick, as they are on a real one.
 */
export async function slowDisk(pid: number, delayMs: number): Promise<AsyncDisposable> {
  const strace = findProgram('strace');
  if (strace === null)
    throw new Error('strace is not installed, but the slow disk needs it (Debian: apt-get install strace)');
  const flushes = 'fsync,fdatasync';
  const child = spawn(
    strace,
    ['-f', '-qq', '-p', String(pid), '-e', `trace=${flushes}`, '-e', `signal=none`]
      .concat(['-e', `inject=${flushes}:delay_enter=${delayMs * 1000}`])
      .concat(['-o', '/dev/null']),
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const ended = new Promise<void>((resolve) => {
    child.once('error', () => resolve());
    child.once('exit', () => resolve());
  });
  const traced = async () => {
    if (child.exitCode !== null) throw new Error(`strace could not attach to process ${pid}`);
    const status = await readFile(join('/proc', String(pid), 'status'), 'utf8');
    return status.includes(`TracerPid:\t${child.pid}\n`);
  };
  await waitUntil(traced);
  return {
    async [Symbol.asyncDispose]() {
      // strace lets go of the process when it is asked to end; killed, it would let go as well.
      child.kill('SIGTERM');
      await ended;
    },
  };
}
