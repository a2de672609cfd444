// SPDX-License-Identifier: Apache-2.0
/** User ids for QEMUs (ADR 0057). Pure. */
import { BusbarError } from '@busbar/core/errors';
import { z } from 'zod';

export interface UidPool {
  readonly first: number;
  readonly count: number;
}

/**
 * Above everything that gives user ids away by itself: useradd ends at 60,000 or so, subuid begins at 100,000, systemd's
 * containers end at 1,879,048,191, and 2,147,483,648 is where some programs begin to see negative numbers. So many,
 * because one that was used is not used again for long: not on this host, and on no other that mounts the same files.
 */
export const DEFAULT_UID_POOL: UidPool = { first: 1_900_000_000, count: 100_000_000 };

/** What useradd, adduser and systemd give to services and people. */
const FIRST_MIN = 65_536;
/** 2^32 - 1 means "nobody in particular" to chown. */
const LAST_MAX = 4_294_967_293;
/** A host runs hundreds of VMs; fewer ids than this would be used again at once. */
const COUNT_MIN = 1_024;

const WANT = `first from ${FIRST_MIN} and count from ${COUNT_MIN}, with first + count - 1 up to ${LAST_MAX}, such as {first: ${DEFAULT_UID_POOL.first}, count: ${DEFAULT_UID_POOL.count}}`;

export const UidPoolSchema = z
  .strictObject({ first: z.int(WANT).min(FIRST_MIN, WANT), count: z.int(WANT).min(COUNT_MIN, WANT) }, WANT)
  .refine(({ first, count }) => first + count - 1 <= LAST_MAX, WANT);

export const isInPool = ({ first, count }: UidPool, id: number): boolean => id >= first && id < first + count;

/** Files that give ids to somebody. A missing one is empty. */
export interface IdFiles {
  readonly passwd: string;
  readonly group: string;
  readonly subuid: string;
  readonly subgid: string;
}

/** Who has an id of the pool, with the file that says so; null: nobody. */
export function ownerInPool(pool: UidPool, files: IdFiles): string | null {
  const fieldsOf = (text: string) => text.split('\n').map((line) => line.split(':'));
  for (const name of ['passwd', 'group'] as const) {
    for (const [who, , id] of fieldsOf(files[name])) {
      if (id !== undefined && /^\d+$/.test(id) && isInPool(pool, Number(id))) return `${who} (${id}, /etc/${name})`;
    }
  }
  for (const name of ['subuid', 'subgid'] as const) {
    for (const [who, first, count] of fieldsOf(files[name])) {
      const [from, many] = [Number(first), Number(count)];
      if (many > 0 && from < pool.first + pool.count && pool.first < from + many) {
        return `${who} (${first} to ${from + many - 1}, /etc/${name})`;
      }
    }
  }
  return null;
}

/** What QEMUs run as must be nobody else: he could read their memory, and they his files. */
export function assertFreeUids(pool: UidPool, files: IdFiles): void {
  const owner = ownerInPool(pool, files);
  if (owner === null) return;
  const problem = `is ${pool.first} to ${pool.first + pool.count - 1}, and of these ${owner} has some`;
  throw new BusbarError({
    kind: 'invalid',
    reason: 'AGENT_CONFIG_INVALID',
    message: `libvirt.uidPool ${problem}`,
    hint: 'name a range of user ids in agent.yaml that /etc/passwd, group, subuid and subgid give to nobody',
    fields: [{ field: 'libvirt.uidPool', problem, expected: 'a range that nobody has' }],
  });
}
