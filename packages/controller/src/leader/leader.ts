// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { type OutboxDeps, withEvents } from '../event/outbox.ts';
import type { LeaderTerm } from '../leadership/term.ts';
import type { ClusterStore, Transaction, TransactionResult } from '../store/cluster-store.ts';
import { groupCommit } from '../store/group-commit.ts';

/**
 * The right to write as leader, for one term. Every transaction also compares the leader key's
 * create revision, so that a deposed leader's write fails however late it arrives, and tells the events of what it changes.
 */
export interface Leader {
  /** The term's number: the store revision at which it began. */
  readonly term: bigint;
  /** Aborts when the term ends. */
  readonly signal: AbortSignal;
  /** Rejects with LEADERSHIP_LOST once the term is no longer valid by our own clock. */
  txn(transaction: Transaction): Promise<TransactionResult>;
}

export function leaderFor(
  deps: OutboxDeps & { readonly store: ClusterStore },
  term: LeaderTerm,
  signal: AbortSignal,
): Leader {
  // A round writes the statuses of many VMs, and their operations go on together.
  const commit = groupCommit(deps.store);
  return {
    term: term.createRevision,
    signal,
    async txn(transaction) {
      if (signal.aborted || !term.isValid()) throw lost();
      const { compare, writes } = withEvents(deps, transaction);
      return commit({ compare: [term.fence(), ...compare], writes });
    },
  };
}

/**
 * Something does not answer or the store has no space now (or this controller leads no more); nothing is wrong with what
 * was asked of it.
 */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof BusbarError)) return false;
  return error.kind === 'unavailable' || error.kind === 'timeout' || error.reason === 'STORE_FULL';
}

function lost(): BusbarError {
  return new BusbarError({
    kind: 'unavailable',
    reason: 'LEADERSHIP_LOST',
    message: 'this controller no longer leads',
  });
}
