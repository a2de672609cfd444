// SPDX-License-Identifier: Apache-2.0
import { BusbarError, type ErrorKind } from '@busbar/core/errors';
import { STORAGE_REASONS } from './driver.ts';

export type StorageReason = keyof typeof STORAGE_REASONS;

const KINDS: Readonly<Record<StorageReason, ErrorKind>> = {
  volumeExistsDifferent: 'already-exists',
  volumeSize: 'invalid',
  volumeShrink: 'invalid',
  volumeInUse: 'precondition',
  volumeNotFound: 'not-found',
  imageNotFound: 'not-found',
  imageInUse: 'precondition',
  imageExistsDifferent: 'already-exists',
  imageInvalid: 'invalid',
  imageChecksum: 'invalid',
  imageBusy: 'conflict',
  importCancelled: 'cancelled',
  importTooSlow: 'cancelled',
  poolFull: 'exhausted',
  spoolFull: 'exhausted',
  storageUnavailable: 'unavailable',
  storageTimeout: 'timeout',
  storageFailed: 'internal',
};

export function storageError(
  reason: StorageReason,
  message: string,
  more: { readonly hint?: string; readonly cause?: unknown } = {},
): BusbarError {
  return new BusbarError({ kind: KINDS[reason], reason: STORAGE_REASONS[reason], message, ...more });
}

export function isReason(error: unknown, reason: StorageReason): error is BusbarError {
  return error instanceof BusbarError && error.reason === STORAGE_REASONS[reason];
}

/** Bytes as people read them, exact enough to compare: `1.50 GiB`. */
export function showBytes(bytes: bigint): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(2)} ${units[unit]}`;
}
