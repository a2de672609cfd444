// SPDX-License-Identifier: Apache-2.0
/** Where a qcow2 stream waits until it is whole: its tables may be anywhere in it. */
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { showBytes, storageError } from '../errors.ts';
import type { ReadAt } from './qcow2-data.ts';
import type { SpoolRoom, SpoolShare } from './room.ts';
import { SparseWriter } from './sparse.ts';

const PREFIX = 'spool-';

export interface Spool extends ReadAt {
  /** At ascending offsets. */
  write(offset: number, data: Uint8Array): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

export type OpenSpool = (sizeBytes: number) => Promise<Spool>;

/**
 * A sparse file without a name: only this process can open it, and it is gone with this process,
 * however that ends.
 */
export function fileSpool(dir: string, room: SpoolRoom): OpenSpool {
  return async (sizeBytes) => {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await sweep(dir);
    const share = await room.take(BigInt(sizeBytes));
    try {
      return await openFile(dir, sizeBytes, share);
    } catch (error) {
      share.giveBack();
      throw error;
    }
  };
}

async function openFile(dir: string, sizeBytes: number, share: SpoolShare): Promise<Spool> {
  const path = join(dir, `${PREFIX}${randomUUID()}`);
  const file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
  await rm(path, { force: true });
  const sparse = new SparseWriter((offset, data) => writeAll(file, offset, data));
  const guarded = async (work: Promise<void>) => {
    try {
      await work;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOSPC') throw spoolFull(dir, sizeBytes, cause);
      throw cause;
    }
  };
  return {
    async write(offset, data) {
      await guarded(sparse.push(offset, data));
      await share.wrote(data.length);
    },
    flush: () => guarded(sparse.flush()),
    async read(offset, bytes) {
      const data = Buffer.alloc(bytes);
      let done = 0;
      while (done < bytes) {
        const { bytesRead } = await file.read(data, done, bytes - done, offset + done);
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return data;
    },
    async close() {
      share.giveBack();
      await file.close();
    },
  };
}

/** What is left of a process that died between making a file and taking its name away: nobody else gives files such names. */
async function sweep(dir: string): Promise<void> {
  for (const entry of await readdir(dir)) {
    if (entry.startsWith(PREFIX)) await rm(join(dir, entry), { force: true });
  }
}

/** For the simulation and tests. */
export const memorySpool: OpenSpool = async (sizeBytes) => {
  const content = Buffer.alloc(sizeBytes);
  return {
    async write(offset, data) {
      content.set(data, offset);
    },
    async flush() {},
    async read(offset, bytes) {
      const data = Buffer.alloc(bytes);
      data.set(content.subarray(offset, offset + bytes));
      return data;
    },
    async close() {},
  };
};

export async function writeAll(file: FileHandle, offset: number, data: Uint8Array): Promise<void> {
  for (let done = 0; done < data.length; ) {
    done += (await file.write(data, done, data.length - done, offset + done)).bytesWritten;
  }
}

function spoolFull(dir: string, sizeBytes: number, cause: unknown) {
  return storageError(
    'spoolFull',
    `the disk of the spool directory ${dir} became full while an image stream of ${showBytes(BigInt(sizeBytes))} was received`,
    { hint: 'free space there, set another spoolDir, or send the image in raw format', cause },
  );
}
