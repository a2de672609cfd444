// SPDX-License-Identifier: Apache-2.0
/** Room on the disk where qcow2 streams wait. By default it is etcd's disk, too. */
import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { SpoolState } from '../driver.ts';
import { showBytes, storageError } from '../errors.ts';

const GIB = 1024n ** 3n;
/**
 * What imports leave free: a tenth of the disk, at least 2 GiB and at most 4. That is etcd's database at its quota (2 GiB),
 * and on larger disks the copy as well that its defragmentation makes. A full disk stops the member.
 */
const RESERVE_MIN = 2n * GIB;
const RESERVE_MAX = 4n * GIB;
/** How much may be written until the disk is looked at again: others write to it, too. */
const LOOK_EVERY_BYTES = 64n * 1024n ** 2n;

export interface DiskSpace {
  readonly totalBytes: bigint;
  readonly freeBytes: bigint;
}

export interface SpoolShare {
  /** Counts what was written, and throws SPOOL_FULL when the disk is running out nevertheless. */
  wrote(bytes: number): Promise<void>;
  giveBack(): void;
}

export class SpoolRoom {
  readonly #dir: string;
  readonly #measure: (dir: string) => Promise<DiskSpace>;
  /** What the imports under way have been promised and have not written yet. */
  #promised = 0n;

  constructor(dir: string, measure: (dir: string) => Promise<DiskSpace> = measureDisk) {
    this.#dir = dir;
    this.#measure = measure;
  }

  async state(): Promise<SpoolState> {
    const { totalBytes, freeBytes } = await this.#measure(this.#dir);
    return { dir: this.#dir, totalBytes, freeBytes, reserveBytes: reserveOf(totalBytes) };
  }

  /** Throws SPOOL_FULL unless a stream of this size fits beside what was promised and what is kept free. */
  async take(sizeBytes: bigint): Promise<SpoolShare> {
    const state = await this.state();
    // From here to the promise nothing is waited for: two that come together do not get the same bytes.
    if (state.freeBytes - state.reserveBytes - this.#promised < sizeBytes) throw this.#full(sizeBytes, state);
    this.#promised += sizeBytes;
    let left = sizeBytes;
    let sinceLook = 0n;
    return {
      wrote: async (bytes) => {
        const written = BigInt(bytes) < left ? BigInt(bytes) : left;
        left -= written;
        this.#promised -= written;
        sinceLook += BigInt(bytes);
        if (sinceLook < LOOK_EVERY_BYTES) return;
        sinceLook = 0n;
        const now = await this.state();
        if (now.freeBytes < now.reserveBytes) throw this.#full(sizeBytes, now);
      },
      giveBack: () => {
        this.#promised -= left;
        left = 0n;
      },
    };
  }

  #full(sizeBytes: bigint, { freeBytes, reserveBytes }: SpoolState) {
    const others = this.#promised > 0n ? ` and ${showBytes(this.#promised)} promised to imports under way` : '';
    return storageError(
      'spoolFull',
      `the image stream of ${showBytes(sizeBytes)} does not fit into the spool directory ${this.#dir}: ` +
        `${showBytes(freeBytes)} are free, of which ${showBytes(reserveBytes)} are kept free${others}`,
      { hint: 'free space there, set another spoolDir, send the image in raw format, or wait for the other imports' },
    );
  }
}

export function reserveOf(totalBytes: bigint): bigint {
  const tenth = totalBytes / 10n;
  if (tenth < RESERVE_MIN) return RESERVE_MIN;
  return tenth > RESERVE_MAX ? RESERVE_MAX : tenth;
}

/** A folder that no import has needed yet will be on the disk of the one above it. */
async function measureDisk(dir: string): Promise<DiskSpace> {
  const { bavail, blocks, bsize } = await statfs(dir, { bigint: true }).catch(async (error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return await statfs(dirname(dir), { bigint: true });
  });
  return { totalBytes: blocks * bsize, freeBytes: bavail * bsize };
}
