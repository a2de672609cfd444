// SPDX-License-Identifier: Apache-2.0
/** Where a qcow2 stream waits until it is whole: its tables may be anywhere in it. */
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { showBytes, storageError } from '../errors.ts';
import type { ReadAt } from './qcow2-data.ts';
import { SparseWriter } from './sparse.ts';

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
export function fileSpool(dir: string): OpenSpool {
  return async (sizeBytes) => {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const { bavail, bsize } = await statfs(dir, { bigint: true });
    if (bavail * bsize < BigInt(sizeBytes)) throw spoolFull(dir, bavail * bsize, sizeBytes);
    const path = join(dir, `spool-${randomUUID()}`);
    const file = await open(
      path,
      constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    );
    await unlink(path);
    const sparse = new SparseWriter((offset, data) => writeAll(file, offset, data));
    const guarded = async (work: Promise<void>) => {
      try {
        await work;
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === 'ENOSPC') throw spoolFull(dir, 0n, sizeBytes, cause);
        throw cause;
      }
    };
    return {
      write: (offset, data) => guarded(sparse.push(offset, data)),
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
      close: () => file.close(),
    };
  };
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

function spoolFull(dir: string, available: bigint, sizeBytes: number, cause?: unknown) {
  return storageError(
    'spoolFull',
    `the image stream of ${showBytes(BigInt(sizeBytes))} does not fit into the spool directory ${dir} ` +
      `(${showBytes(available)} available)`,
    { hint: 'free space there, set another spoolDir, or send the image in raw format', cause },
  );
}
