// SPDX-License-Identifier: Apache-2.0
import { open } from 'node:fs/promises';
import { join } from 'node:path';

const READ_BYTES = 16 * 1024;
const LINES = 5;

/**
 * What QEMU itself said in its last run, for when libvirt's error does not hold it. libvirt writes
 * a line and then QEMU's whole command line before, and its own remarks with a time stamp.
 */
export function relevantLines(log: string, alreadySaid: string): string[] {
  const start = log.lastIndexOf(': starting up libvirt version');
  const lines = (start < 0 ? log : log.slice(start)).split('\n').slice(1);
  return (
    lines
      .map((line) => line.trim())
      .filter((line) => /^(\d{4}-\S+ )?\S*qemu\S*: /.test(line) || /error|failed|denied/i.test(line))
      .filter((line) => !line.startsWith('-') && !/^[A-Z_]+=/.test(line))
      // libvirt's own remarks, unlike QEMU's, have a blank in their time stamp.
      .filter((line) => !/^\d{4}-\d\d-\d\d \d\d:/.test(line))
      .map((line) => line.replace(/^\d{4}-\d\d-\d\dT[\d:.]+Z /, ''))
      .filter((line) => !alreadySaid.includes(line))
      .slice(-LINES)
  );
}

export async function readLogEnd(path: string): Promise<string> {
  try {
    await using file = await open(path, 'r');
    const { size } = await file.stat();
    const length = Math.min(size, READ_BYTES);
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length);
    return buffer.toString('utf8');
  } catch {
    // Best effort: libvirt's own message is there in any case.
    return '';
  }
}

const LOG_DIR = '/var/log/libvirt/qemu';

/** Why a domain did not start: what libvirt said, and what QEMU wrote into its log. */
export async function whyFailed(logDir: string | undefined, name: string, error: unknown): Promise<string> {
  const said = error instanceof Error ? error.message : String(error);
  const log = await readLogEnd(join(logDir ?? LOG_DIR, `${name}.log`));
  // Only when QEMU ran at all: else the log's end is of an earlier start.
  const more = /monitor|qemu unexpectedly/i.test(said) ? relevantLines(log, said) : [];
  return [said.trim(), ...more].join('; ');
}
