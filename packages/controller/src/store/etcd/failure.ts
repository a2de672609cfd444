// SPDX-License-Identifier: Apache-2.0
import { status } from '@grpc/grpc-js';
import type { Transaction } from '../cluster-store.ts';

/**
 * What a failed call means. Everything not listed is 'unknown': in particular etcd's own "request
 * timed out" and a connection that broke during the call, after which a write may still be applied.
 */
export type FailureKind =
  /** Certainly not applied, neither now nor later; another member, or this one later, may do it. */
  | 'not-applied'
  | 'unknown'
  | 'lease-gone'
  | 'compacted'
  | 'no-space'
  /** The answer was larger than the client accepts. */
  | 'answer-too-large'
  | 'invalid'
  | 'forbidden';

export class CallFailure extends Error {
  override readonly name = 'CallFailure';
  readonly kind: FailureKind;

  constructor(kind: FailureKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.kind = kind;
  }
}

const BY_TEXT: readonly (readonly [string, FailureKind])[] = [
  // grpc-js 1.14, before it has a connection to send on.
  ['No connection established', 'not-applied'],
  ['Name resolution failed', 'not-applied'],
  ['Received message larger than max', 'answer-too-large'],
  // etcd 3.4 to 3.6, api/v3rpc/rpctypes/error.go.
  ['etcdserver: no leader', 'not-applied'],
  ['etcdserver: not leader', 'not-applied'],
  ['etcdserver: too many requests', 'not-applied'],
  ['etcdserver: rpc not supported for learner', 'not-applied'],
  // raft refuses a proposal while it knows no leader.
  ['raft proposal dropped', 'not-applied'],
  ['etcdserver: requested lease not found', 'lease-gone'],
  ['etcdserver: mvcc: required revision has been compacted', 'compacted'],
  ['etcdserver: mvcc: database space exceeded', 'no-space'],
];

export function failureKind(code: number, details: string): FailureKind {
  const known = BY_TEXT.find(([start]) => details.startsWith(start));
  if (known !== undefined) return known[1];
  if (code === status.INVALID_ARGUMENT) return 'invalid';
  if (code === status.PERMISSION_DENIED || code === status.UNAUTHENTICATED) return 'forbidden';
  return 'unknown';
}

/**
 * Whether a transaction of unknown outcome may be sent again: only if applying it makes one of its
 * own comparisons false for ever. Revisions are never used twice, so a comparison with an existing
 * revision of a key that the transaction changes is such a guard; "does not exist" is none, as the
 * key may be created by the first sending, deleted by somebody else, and created by the second.
 * The second answer "succeeded" then proves that it was applied just once; "failed" proves nothing.
 */
export function mayRepeat({ compare, writes }: Transaction): boolean {
  return compare.some(({ target, key, revision }) => {
    if (revision === 0n) return false;
    const write = writes.find((candidate) => candidate.key === key);
    return write !== undefined && (target === 'mod' || write.kind === 'delete');
  });
}
