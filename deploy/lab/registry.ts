// SPDX-License-Identifier: Apache-2.0
// Which labs exist on this machine and which index (subnets, link names) each has.
import { mkdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { createLabCgroups, removeCgroups } from './cgroup.ts';
import { withLock } from './lock.ts';
import { OWN_MOUNT_POINTS, REGISTRY, STATE_ROOT } from './paths.ts';
import { MAX_INDEX, SpecError } from './plan.ts';

const schema = z.strictObject({ labs: z.record(z.string(), z.number().int().min(0).max(MAX_INDEX)) });
// No '/' in a lab's name, so this cannot be a lab's own lock.
const LOCK = 'registry/';

/** Replaced as a whole, so that a crash leaves the old file or the new one. */
export async function writeAtomically(file: string, text: string, mode = 0o644): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const next = `${file}.${process.pid}.new`;
  await writeFile(next, text, { mode });
  await rename(next, file);
}

export async function readRegistry(): Promise<Readonly<Record<string, number>>> {
  let text: string;
  try {
    text = await readFile(REGISTRY, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw error;
  }
  return schema.parse(JSON.parse(text)).labs;
}

export function freeIndex(taken: readonly number[]): number {
  const used = new Set(taken);
  for (let index = 0; index <= MAX_INDEX; index += 1) if (!used.has(index)) return index;
  throw new SpecError(`all ${MAX_INDEX + 1} lab subnets are in use: run "down" for a lab that is no longer needed`);
}

/** The index of a lab, a new one if it has none. */
export async function register(lab: string): Promise<number> {
  return await withLock(LOCK, async () => {
    const labs = await readRegistry();
    const index = labs[lab] ?? freeIndex(Object.values(labs));
    if (labs[lab] === undefined)
      await writeAtomically(REGISTRY, `${JSON.stringify({ labs: { ...labs, [lab]: index } }, null, 2)}\n`);
    // What all labs share is made and removed under this lock, so that one lab's last act does not hit another's first.
    await createLabCgroups(lab);
    for (const directory of OWN_MOUNT_POINTS) await mkdir(directory, { recursive: true });
    return index;
  });
}

export async function unregister(lab: string): Promise<void> {
  await withLock(LOCK, async () => {
    const { [lab]: _gone, ...rest } = await readRegistry();
    await removeCgroups(lab);
    if (Object.keys(rest).length > 0) {
      await writeAtomically(REGISTRY, `${JSON.stringify({ labs: rest }, null, 2)}\n`);
      return;
    }
    await removeCgroups();
    await rm(REGISTRY, { force: true });
    // Only when empty: on a production host these directories are the real daemons'.
    for (const directory of [...OWN_MOUNT_POINTS, STATE_ROOT]) await rmdir(directory).catch(() => {});
  });
}
