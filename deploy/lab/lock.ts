// SPDX-License-Identifier: Apache-2.0
// Mutual exclusion between lab commands, of different processes too. The lock is a listening socket in Linux' abstract
// name space: the kernel drops it with its holder, so a killed command leaves nothing stale behind.
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export class LockedError extends Error {
  override readonly name = 'LockedError';
}

/** A whole `up` may be under way in front of us. */
const DEFAULT_WAIT_MS = 180_000;

export async function withLock<T>(
  name: string,
  action: () => Promise<T>,
  options: { readonly waitMs?: number; readonly onWait?: () => void } = {},
): Promise<T> {
  const end = performance.now() + (options.waitMs ?? DEFAULT_WAIT_MS);
  let told = false;
  for (;;) {
    const server = createServer((socket) => socket.destroy());
    try {
      server.listen(`\0busbar-lab/${name}`);
      await once(server, 'listening');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
      if (performance.now() >= end) throw new LockedError(`another lab command still holds the lock "${name}"`);
      if (!told) options.onWait?.();
      told = true;
      await sleep(100);
      continue;
    }
    try {
      return await action();
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  }
}
