// SPDX-License-Identifier: Apache-2.0
/** Steps on files that are whole or not there, also after a power failure. */
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, type FileHandle, link, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { SparseWriter } from '../image/sparse.ts';
import { writeAll } from '../image/spool.ts';

const READ_BYTES = 4 * 1024 * 1024;
const CREATE = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

export function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | null)?.code === 'ENOENT';
}

export async function orNull<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

export function tempName(base: string): string {
  return `${base}.${randomUUID()}`;
}

export function createFile(path: string): Promise<FileHandle> {
  return open(path, CREATE, 0o600);
}

async function syncDir(path: string): Promise<void> {
  const dir = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await dir.sync();
  } finally {
    await dir.close();
  }
}

/** Puts a finished (synced) file into its place. */
export async function publish(temp: string, path: string): Promise<void> {
  await rename(temp, path);
  await syncDir(dirname(path));
}

/** The same, but refuses (false) when something has the place: a rename would replace it. */
export async function publishOnce(temp: string, path: string): Promise<boolean> {
  try {
    await link(temp, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
  await syncDir(dirname(path));
  await rm(temp, { force: true });
  return true;
}

/** Takes a file out of its place, whole, so that nobody ever sees a part of it there. */
export async function takeAway(path: string, tomb: string): Promise<void> {
  await orNull(rename(path, tomb));
  await syncDir(dirname(path));
}

export async function removeFile(path: string): Promise<void> {
  await rm(path, { force: true });
  await syncDir(dirname(path));
}

export async function writeWhole(temp: string, path: string, text: string): Promise<void> {
  const file = await createFile(temp);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await publish(temp, path);
}

export async function readText(path: string): Promise<string | null> {
  const file = await orNull(open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK));
  if (file === null) return null;
  try {
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

/**
 * Shares the blocks where the file system can (XFS, Btrfs, CephFS, NFS 4.2); else copies the data and
 * leaves out the zeros, which the kernel's own copy would write out.
 */
export async function cloneFile(from: string, to: string): Promise<void> {
  try {
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
    return;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOSPC' || code === 'EEXIST') throw error;
    await rm(to, { force: true });
  }
  const source = await open(from, constants.O_RDONLY);
  try {
    const target = await createFile(to);
    try {
      const { size } = await source.stat();
      await target.truncate(size);
      const sparse = new SparseWriter((offset, data) => writeAll(target, offset, data));
      const buffer = Buffer.alloc(READ_BYTES);
      for (let at = 0; at < size; ) {
        const { bytesRead } = await source.read(buffer, 0, READ_BYTES, at);
        if (bytesRead === 0) break;
        await sparse.push(at, buffer.subarray(0, bytesRead));
        at += bytesRead;
      }
      await sparse.flush();
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}
