// SPDX-License-Identifier: Apache-2.0
/**
 * A lock that the kernel drops with its holder, however that one ends, and that nobody else can take.
 *
 * Node has no flock(2). The program flock(1) of util-linux locks a descriptor that it inherits, and a lock belongs to what
 * was opened, not to the process that asked: so it stays ours when that program has ended. Not taken: a listening socket in
 * Linux' abstract name space (any user of the machine can take the name first), a file with our process id (two that find
 * a stale one at once both win), fcntl locks by SQLite (they go when anything in the process closes the file).
 */
import { spawn } from 'node:child_process';
import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { BusbarError } from '@busbar/core/errors';

/** flock's answer when another holds the lock; any number that it does not use itself (sysexits' EX_TEMPFAIL). */
const BUSY = 75;
/** Beyond the wait that was asked for: flock(1) itself takes milliseconds. */
const GRACE_MS = 10_000;
/** Who may write here may put another file in the lock's place, and two processes would each hold one. */
const OTHERS_MAY_WRITE = 0o022;

/**
 * Takes the lock of `path`, which is made if need be; its directory has to be there, and only its owner may write in it.
 * Undefined when another process holds the lock for longer than the wait. Ends with the process or with `dispose`.
 */
export async function lockFile(
  path: string,
  options: { readonly waitMs?: number } = {},
): Promise<Disposable | undefined> {
  assertOwn(dirname(path));
  // A number, not a FileHandle: the garbage collector closes those, and the lock would go with it.
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  try {
    if (!fstatSync(fd).isFile()) throw unsafe(path, 'is not a regular file');
    if (!(await flock(path, fd, options.waitMs ?? 0))) {
      closeSync(fd);
      return undefined;
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  let held = true;
  return {
    [Symbol.dispose]() {
      if (held) closeSync(fd);
      held = false;
    },
  };
}

function flock(path: string, fd: number, waitMs: number): Promise<boolean> {
  const patience = waitMs === 0 ? ['--nonblock'] : ['--wait', String(waitMs / 1_000)];
  const argv = ['--exclusive', ...patience, '--conflict-exit-code', String(BUSY), '3'];
  return new Promise((resolve, reject) => {
    const child = spawn('flock', argv, { stdio: ['ignore', 'ignore', 'pipe', fd], timeout: waitMs + GRACE_MS });
    let said = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    child.once('error', (cause) => reject(failed(path, 'flock (package util-linux) cannot be run', cause)));
    child.once('close', (code, signal) => {
      if (code === 0) resolve(true);
      else if (code === BUSY) resolve(false);
      else reject(failed(path, said.trim() || `flock ended with ${signal ?? code}`));
    });
  });
}

function assertOwn(directory: string): void {
  const { mode, uid } = statSync(directory);
  if ((mode & OTHERS_MAY_WRITE) !== 0)
    throw unsafe(directory, `has mode ${(mode & 0o7777).toString(8)}: others may write in it`);
  if (uid !== process.geteuid?.() && uid !== 0) throw unsafe(directory, `belongs to user ${uid}`);
}

function unsafe(path: string, why: string): BusbarError {
  return new BusbarError({
    kind: 'precondition',
    reason: 'LOCK_UNSAFE',
    message: `${path} ${why}, so nothing can be locked there`,
    hint: 'use a directory of its own, made by root with mode 0711 or less',
  });
}

function failed(path: string, why: string, cause?: unknown): BusbarError {
  return new BusbarError({
    kind: 'unavailable',
    reason: 'LOCK_FAILED',
    message: `${path} cannot be locked: ${why}`,
    cause,
  });
}
