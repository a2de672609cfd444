// SPDX-License-Identifier: Apache-2.0
import { BusbarError, type ErrorKind } from '@busbar/core/errors';
import { STORAGE_REASONS } from '../driver.ts';

/** Linux errno values that librados and librbd answer with (negated). */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EINVAL: 22,
  ENOSPC: 28,
  EROFS: 30,
  ERANGE: 34,
  ENOTEMPTY: 39,
  ENOTCONN: 107,
  /** Ceph's EBLOCKLISTED: this client instance is fenced. */
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  EDQUOT: 122,
} as const;

interface Meaning {
  readonly kind: ErrorKind;
  readonly reason: string;
  readonly words: string;
  readonly hint?: string;
}

const caps =
  'check that the keyring holds the key of this Ceph user, and its caps (docs/operations.md, "Ceph"): mon, osd and mgr "profile rbd", and with identities: vm those for making identities';
const full = { kind: 'exhausted', reason: STORAGE_REASONS.poolFull, words: 'no space left' } as const;
const denied = { kind: 'unavailable', reason: STORAGE_REASONS.storageUnavailable, words: 'denied by Ceph' } as const;

/** What is not here is a refusal that the driver expects and handles by its code, or a bug. */
const MEANINGS: Readonly<Record<number, Meaning>> = {
  [ERRNO.EPERM]: { ...denied, hint: caps },
  [ERRNO.EACCES]: { ...denied, hint: caps },
  [ERRNO.ENOSPC]: full,
  [ERRNO.EDQUOT]: full,
  [ERRNO.EBUSY]: { kind: 'precondition', reason: STORAGE_REASONS.volumeInUse, words: 'in use' },
  [ERRNO.ETIMEDOUT]: { kind: 'timeout', reason: STORAGE_REASONS.storageTimeout, words: 'Ceph did not answer in time' },
  [ERRNO.ENOTCONN]: {
    kind: 'unavailable',
    reason: STORAGE_REASONS.storageUnavailable,
    words: 'not connected to Ceph',
  },
  [ERRNO.ESHUTDOWN]: {
    kind: 'unavailable',
    reason: STORAGE_REASONS.storageUnavailable,
    words: 'this client is fenced (blocklisted) by Ceph',
  },
};

/** Throws what a negative return code of `call` means; answers the code otherwise. */
export function check(call: string, code: number | bigint): number {
  const result = Number(code);
  if (result >= 0) return result;
  const errno = -result;
  const name = Object.entries(ERRNO).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
  const meaning = MEANINGS[errno];
  throw new BusbarError({
    kind: meaning?.kind ?? 'internal',
    reason: meaning?.reason ?? STORAGE_REASONS.storageFailed,
    message: `${call}: ${meaning?.words ?? 'failed'} (${name})`,
    hint: meaning?.hint ?? '',
    cause: Object.assign(new Error(name), { code: errno }),
  });
}
