// SPDX-License-Identifier: Apache-2.0
/**
 * A user id for each QEMU that nobody else has, so that one which a guest took over reaches no file, socket, process or
 * memory of another (ADR 0057). Its group has the same number: libvirt gives QEMU's directories to both, open for the group.
 *
 * Nothing is written down. Who lives is asked of the kernel, so a restarted agent knows it too, and also what libvirt lost.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { lstat, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BusbarError } from '@busbar/core/errors';
import type { Epoch, VmId } from '@busbar/core/ids';
import { isInPool, type UidPool } from '../config/uid-pool.ts';

/** Where any user may leave something; what a former owner left, a program with the set-user-id bit say, would be the next one's. */
const OPEN_TO_ALL = ['/tmp', '/var/tmp', '/dev/shm', '/dev/mqueue', '/run/lock', '/var/crash'];
/** More than a sane host has in such a place. With a pool of the size of ours, what lies behind it will hardly meet its owner's id again. */
const ENTRIES_MAX = 10_000;

export interface VmUidsOptions {
  readonly procRoot?: string;
  /** Directories whose entries may belong to former QEMUs: those of the agent beside those that are open to all. */
  readonly ownDirs?: readonly string[];
  readonly openDirs?: readonly string[];
}

export class VmUids {
  readonly #pool: UidPool;
  readonly #procRoot: string;
  readonly #dirs: readonly string[];
  /** Given to starts whose QEMU may not be there yet. */
  readonly #starting = new Set<number>();

  constructor(pool: UidPool, options: VmUidsOptions = {}) {
    this.#pool = pool;
    this.#procRoot = options.procRoot ?? '/proc';
    this.#dirs = [...(options.openDirs ?? OPEN_TO_ALL), ...(options.ownDirs ?? [])];
  }

  /** For one start; it is kept until `started` says that QEMU is there, or will not be. */
  async take(vmId: VmId, epoch: Epoch): Promise<number> {
    const used = new Set([...this.living(), ...(await this.#leftBehind())]);
    const { first, count } = this.#pool;
    // Spread out, so that one that was used is not used again soon, without anything that has to be remembered.
    const begin = createHash('sha256').update(`${vmId}/${epoch}`).digest().readUIntBE(0, 6) % count;
    for (let step = 0; step < count && step <= used.size + this.#starting.size; step++) {
      const uid = first + ((begin + step) % count);
      if (used.has(uid) || this.#starting.has(uid)) continue;
      this.#starting.add(uid);
      return uid;
    }
    throw new BusbarError({
      kind: 'exhausted',
      reason: 'NO_FREE_UID',
      message: `all ${count} user ids from ${first} are in use`,
      hint: 'give the agent more of them: libvirt.uidPool in agent.yaml',
    });
  }

  started(uid: number): void {
    this.#starting.delete(uid);
  }

  /** Those of the pool that a process has as any of its ids. Throws when a process cannot be looked at: it might be one. */
  living(): ReadonlySet<number> {
    const found = new Set<number>();
    for (const entry of readdirSync(this.#procRoot)) {
      if (!/^\d+$/.test(entry)) continue;
      for (const id of idsOf(join(this.#procRoot, entry, 'status'))) if (isInPool(this.#pool, id)) found.add(id);
    }
    return found;
  }

  async #leftBehind(): Promise<number[]> {
    const owners = await Promise.all([...this.#dirs.map(ownersIn), this.#ofSharedMemory()]);
    return owners.flat().filter((uid) => isInPool(this.#pool, uid));
  }

  /** System V objects live on without their makers. */
  async #ofSharedMemory(): Promise<number[]> {
    const texts = ['shm', 'sem', 'msg'].map((kind) =>
      readFile(join(this.#procRoot, 'sysvipc', kind), 'latin1').catch(() => ''),
    );
    return (await Promise.all(texts)).flatMap((text) => {
      const [header, ...rows] = text.split('\n').map((line) => line.trim().split(/\s+/));
      const columns = ['uid', 'cuid'].map((name) => header?.indexOf(name) ?? -1).filter((column) => column >= 0);
      return rows.flatMap((row) => columns.map((column) => Number(row[column])));
    });
  }
}

/** Real, effective, saved and file system id; read at once, since a host has thousands of processes and this is one start's. */
function idsOf(statusFile: string): number[] {
  try {
    const line = /^Uid:(.*)$/m.exec(readFileSync(statusFile, 'latin1'))?.[1] ?? '';
    return line.trim().split(/\s+/).map(Number);
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

async function ownersIn(dir: string): Promise<number[]> {
  const names = await readdir(dir).catch(() => []);
  const owners = names.slice(0, ENTRIES_MAX).map((name) =>
    lstat(join(dir, name)).then(
      ({ uid }) => uid,
      () => 0,
    ),
  );
  return await Promise.all(owners);
}
