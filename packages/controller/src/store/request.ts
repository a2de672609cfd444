// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import type { Transaction } from './cluster-store.ts';
import { invalidRequest } from './errors.ts';

/** etcd's --max-txn-ops default; it holds for comparisons and for writes separately. */
export const MAX_TRANSACTION_OPERATIONS = 128;
/** etcd refuses requests above 1.5 MiB, its whole database has a quota of 2 GiB: half of it leaves room for framing. */
export const MAX_TRANSACTION_BYTES = 768 * 1024;
/** etcd's floor is 1.5 election timeouts (1.5 s by default), rounded up to whole seconds. */
export const MIN_LEASE_TTL_MS = 2_000;

/**
 * Refuses, in both implementations alike, what etcd would refuse or silently change (a lone
 * surrogate becomes U+FFFD in UTF-8).
 */
export function checkTransaction({ compare, writes }: Transaction): void {
  if (compare.length > MAX_TRANSACTION_OPERATIONS || writes.length > MAX_TRANSACTION_OPERATIONS) {
    throw invalidRequest(
      `a transaction has ${compare.length} comparisons and ${writes.length} writes; at most ${MAX_TRANSACTION_OPERATIONS} of each are allowed`,
    );
  }
  let bytes = 0;
  const written = new Set<string>();
  for (const { key } of compare) {
    checkKey(key);
    bytes += Buffer.byteLength(key);
  }
  for (const write of writes) {
    checkKey(write.key);
    if (written.has(write.key)) throw invalidRequest(`a transaction writes the key "${write.key}" twice`);
    written.add(write.key);
    bytes += Buffer.byteLength(write.key);
    if (write.kind === 'put') {
      if (!write.value.isWellFormed()) throw invalidRequest(`the value of "${write.key}" is not well-formed Unicode`);
      bytes += Buffer.byteLength(write.value);
    }
  }
  if (bytes > MAX_TRANSACTION_BYTES) {
    const keys = [...written].slice(0, 3).join(', ');
    throw invalidRequest(
      `a transaction of ${bytes} bytes is larger than the store's limit of ${MAX_TRANSACTION_BYTES} bytes (keys: ${keys})`,
      'Split the record, or keep large data outside the cluster store.',
    );
  }
}

export function checkKey(key: string): void {
  if (key === '') throw invalidRequest('a key must not be empty');
  if (!key.isWellFormed()) throw invalidRequest('a key is not well-formed Unicode');
}

export function checkPrefix(prefix: string): void {
  if (!prefix.isWellFormed()) throw invalidRequest('a prefix is not well-formed Unicode');
}

export function checkLeaseTtl(ttlMs: number): void {
  assert(
    Number.isInteger(ttlMs / 1000) && ttlMs >= MIN_LEASE_TTL_MS,
    `lease TTL ${ttlMs} ms: whole seconds, at least 2`,
  );
}

/** Orders well-formed strings as etcd orders their UTF-8 bytes; JavaScript's own order differs above U+D7FF. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return byteOrder(x) - byteOrder(y);
  }
  return a.length - b.length;
}

/** Moves surrogates (U+10000 and above) behind the rest of the basic plane. */
function byteOrder(unit: number): number {
  if (unit >= 0xe000) return unit - 0x800;
  return unit >= 0xd800 ? unit + 0x2000 : unit;
}
