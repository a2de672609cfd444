// SPDX-License-Identifier: Apache-2.0
// Mutual exclusion between lab commands, of different processes too. The kernel drops a lock with its holder, so a killed
// command leaves nothing stale behind.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { lockFile } from '@busbar/pki/file-lock';

export class LockedError extends Error {
  override readonly name = 'LockedError';
}

/** Root's, as labs are. Gone with a restart of the machine, as its processes are. */
const DIRECTORY = '/run/busbar-lab';
/** A whole `up` may be under way in front of us. */
const DEFAULT_WAIT_MS = 180_000;

export async function withLock<T>(
  name: string,
  action: () => Promise<T>,
  options: { readonly waitMs?: number; readonly onWait?: () => void; readonly directory?: string } = {},
): Promise<T> {
  const { waitMs = DEFAULT_WAIT_MS, onWait, directory = DIRECTORY } = options;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, encodeURIComponent(name));
  const lock = (await lockFile(path)) ?? (await patiently());
  if (lock === undefined) throw new LockedError(`another lab command still holds the lock "${name}"`);
  try {
    return await action();
  } finally {
    lock[Symbol.dispose]();
  }

  async function patiently(): Promise<Disposable | undefined> {
    if (waitMs === 0) return undefined;
    onWait?.();
    return await lockFile(path, { waitMs });
  }
}
