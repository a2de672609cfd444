// SPDX-License-Identifier: Apache-2.0
import { isIP } from 'node:net';
import { usageError } from '../cli/exit.ts';

export function ipFlag(flag: string, value: string): string {
  if (isIP(value) !== 0) return value;
  throw usageError(
    `${flag} ${value} is not allowed`,
    `${JSON.stringify(value)} is no IP address`,
    `write e.g. ${flag} 10.0.0.2`,
  );
}
