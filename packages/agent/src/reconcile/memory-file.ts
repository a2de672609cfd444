// SPDX-License-Identifier: Apache-2.0
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { BusbarError } from '@busbar/core/errors';
import type { BootId, VmId } from '@busbar/core/ids';
import { EndReason, endReasonFromJSON } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { z } from 'zod';
import type { Memory, MemoryStore, VmMemory } from './memory.ts';

const epoch = z.string().regex(/^\d+$/).transform(BigInt);

const schema = z.object({
  version: z.literal(1),
  bootId: z.string(),
  accepted: z.object({ term: epoch, generation: epoch }),
  /** Not in the files of former versions. */
  storeRevision: epoch.default(0n),
  vms: z.array(
    z.object({
      vmId: z.string(),
      highestEpoch: epoch,
      startedEpoch: epoch,
      endedEpoch: epoch,
      end: z.object({ reason: z.string(), message: z.string() }).optional(),
    }),
  ),
});

/**
 * The agent's memory as one JSON file. Replaced whole (write, fsync, rename, fsync of the folder),
 * so a crash at any moment leaves the former or the new one. A file that cannot be understood is
 * left as it is and is an error: taking it for empty could start an epoch twice.
 */
export class MemoryFile implements MemoryStore {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async load(): Promise<Memory | undefined> {
    let text: string;
    try {
      text = await readFile(this.#path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw this.#unreadable(error);
    }
    try {
      return decode(text);
    } catch (error) {
      throw this.#unreadable(error);
    }
  }

  async save(memory: Memory): Promise<void> {
    const folder = dirname(this.#path);
    const temporary = `${this.#path}.new`;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(encode(memory));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, this.#path);
    const handle = await open(folder, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  #unreadable(cause: unknown): BusbarError {
    return new BusbarError({
      kind: 'internal',
      reason: 'AGENT_MEMORY_UNREADABLE',
      message: `the agent's memory ${this.#path} cannot be read`,
      hint: 'Repair or restore the file. Remove it only when no VM of this host is recorded as running.',
      cause,
    });
  }
}

export function encode(memory: Memory): string {
  const vms = [...memory.vms].map(([vmId, vm]) => ({ vmId, ...vm }));
  const plain = {
    version: 1,
    bootId: memory.bootId,
    accepted: memory.accepted,
    storeRevision: memory.storeRevision,
    vms,
  };
  return `${JSON.stringify(plain, (_key, value: unknown) => (typeof value === 'bigint' ? value.toString() : value), 1)}\n`;
}

export function decode(text: string): Memory {
  const { bootId, accepted, storeRevision, vms } = schema.parse(JSON.parse(text));
  return {
    bootId: bootId as BootId,
    accepted,
    storeRevision,
    vms: new Map(
      vms.map(({ vmId, end, ...epochs }): [VmId, VmMemory] => [
        vmId as VmId,
        { ...epochs, end: end && { reason: knownReason(end.reason), message: end.message } },
      ]),
    ),
  };
}

function knownReason(text: string): EndReason {
  const reason = endReasonFromJSON(text);
  return reason === EndReason.UNRECOGNIZED ? EndReason.VANISHED : reason;
}
