// SPDX-License-Identifier: Apache-2.0
/** Whoever reads a client key may do what its owner may: only the owner should. */
import { statSync } from 'node:fs';

/** What is wrong with the permissions of a key, and the command that puts it right; undefined when nothing is. */
export function keyWarning(path: string): string | undefined {
  const mode = statSync(path).mode & 0o777;
  if ((mode & 0o077) === 0) return undefined;
  const others = (mode & 0o044) === 0 ? 'changed' : 'read';
  return `the key ${path} can be ${others} by other users (mode ${octal(mode)}): chmod 600 ${path}`;
}

export function keyMode(path: string): string {
  return octal(statSync(path).mode & 0o777);
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}
