// SPDX-License-Identifier: Apache-2.0
/**
 * Remembers which controller answered last, so that a dead first endpoint costs its connect deadline once and not
 * with every command. Only a hint: a missing, broken or unwritable file changes nothing.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Io } from '../cli/io.ts';

export interface LastEndpoint {
  read(): string | undefined;
  write(address: string): void;
}

export function lastEndpoint(io: Io, context: string): LastEndpoint {
  const base = io.env['XDG_CACHE_HOME'];
  const directory = base === undefined || base === '' ? join(io.home, '.cache') : base;
  const path = join(directory, 'busbar', 'last-endpoint', `${encodeURIComponent(context)}.txt`);
  return {
    read() {
      try {
        return readFileSync(path, 'utf8').trim();
      } catch {
        return undefined;
      }
    },
    write(address) {
      try {
        mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
        const temporary = `${path}.${process.pid}.tmp`;
        writeFileSync(temporary, `${address}\n`);
        renameSync(temporary, path);
      } catch {
        // A read-only home is no reason to fail a command that worked.
      }
    },
  };
}
