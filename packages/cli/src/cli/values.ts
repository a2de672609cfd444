// SPDX-License-Identifier: Apache-2.0
/** Values of flags, with errors that name the flag. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseBytes, parseMs } from '../manifest/units.ts';
import { CliError, EXIT, usageError } from './exit.ts';
import type { Io } from './io.ts';

export function bytesFlag(flag: string, value: string): bigint {
  const parsed = parseBytes(value);
  if (parsed.ok) return parsed.value;
  throw usageError(`${flag} ${value} is not allowed`, parsed.error.problem, `write ${parsed.error.expected}`);
}

export function msFlag(flag: string, value: string): number {
  const parsed = parseMs(value);
  if (parsed.ok) return parsed.value;
  throw usageError(`${flag} ${value} is not allowed`, parsed.error.problem, `write ${parsed.error.expected}`);
}

export function intFlag(flag: string, value: string, max: number): number {
  const number = /^[0-9]{1,9}$/.test(value) ? Number(value) : Number.NaN;
  if (number >= 1 && number <= max) return number;
  throw usageError(
    `${flag} ${value} is not allowed`,
    `${JSON.stringify(value)} is no number from 1 to ${max}`,
    `write e.g. ${flag} 2`,
  );
}

/** "2h" ago, or a time. */
export function sinceFlag(flag: string, value: string, now: Date): Date {
  const ago = parseMs(value);
  if (ago.ok) return new Date(now.getTime() - ago.value);
  const time = /^\d{4}-\d\d-\d\d/.test(value) ? new Date(value) : new Date(Number.NaN);
  if (!Number.isNaN(time.getTime())) return time;
  throw usageError(
    `${flag} ${value} is not allowed`,
    `${JSON.stringify(value)} is neither a duration nor a time`,
    `write e.g. ${flag} 2h or ${flag} 2026-05-01T12:00:00Z`,
  );
}

const NAME = /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** The same rule as the API's, told before anything is sent. */
export function nameArgument(name: string): string {
  if (NAME.test(name)) return name;
  throw usageError(
    `${JSON.stringify(name)} is no name`,
    'names are 1 to 63 lower-case letters, digits and hyphens, beginning with a letter, not ending in a hyphen',
    'choose another name',
  );
}

export function readTextFile(io: Io, file: string): string {
  try {
    return readFileSync(resolve(io.directory, file), 'utf8');
  } catch (error) {
    throw fileError(file, error);
  }
}

/** A file, or stdin for "-". */
export async function readInput(io: Io, file: string): Promise<string> {
  if (file !== '-') return readTextFile(io, file);
  const chunks: Buffer[] = [];
  for await (const chunk of io.stdin) chunks.push(Buffer.from(chunk as Uint8Array));
  return Buffer.concat(chunks).toString('utf8');
}

export function fileError(file: string, error: unknown): CliError {
  const { code, message } = error as NodeJS.ErrnoException;
  const why = code === 'ENOENT' ? 'there is no such file' : code === 'EISDIR' ? 'it is a directory' : message;
  return new CliError({
    exit: EXIT.usage,
    reason: 'FILE_UNREADABLE',
    what: `cannot read ${file}`,
    why: [why],
    hint: 'check the path',
    cause: error,
  });
}
