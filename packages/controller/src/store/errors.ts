// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';

/** What both store implementations say, word for word, so that callers can rely on kind and reason. */

/** Nothing was applied and nothing will be. */
export function storeUnavailable(what: string, cause?: unknown): BusbarError {
  return new BusbarError({
    kind: 'unavailable',
    reason: 'STORE_UNAVAILABLE',
    message: `the cluster store did not answer (${what})`,
    hint: 'A majority of the etcd members must run and reach each other; retry when they do.',
    cause,
  });
}

/** The write may have been applied, or may still be. */
export function outcomeUnknown(what: string, cause?: unknown): BusbarError {
  return new BusbarError({
    kind: 'timeout',
    reason: 'STORE_OUTCOME_UNKNOWN',
    message: `the cluster store did not confirm a write in time (${what}); it may or may not have been applied`,
    hint: 'Read the record again before repeating the request.',
    cause,
  });
}

export function storeClosed(): BusbarError {
  return new BusbarError({
    kind: 'unavailable',
    reason: 'STORE_CLOSED',
    message: 'the connection to the cluster store is closed',
  });
}

export function leaseGone(what: string, cause?: unknown): BusbarError {
  return new BusbarError({
    kind: 'precondition',
    reason: 'LEASE_GONE',
    message: `the lease does not exist any more (${what})`,
    cause,
  });
}

/** Nothing was applied. Reads, renewals and deletions go on; whatever grows the database is refused until an operator made space. */
export function storeFull(cause?: unknown): BusbarError {
  return new BusbarError({
    kind: 'exhausted',
    reason: 'STORE_FULL',
    message: 'the etcd database has reached its quota and takes no more writes',
    hint: 'Compact and defragment etcd, then disarm its NOSPACE alarm (etcdctl alarm disarm).',
    cause,
  });
}

export function invalidRequest(message: string, hint?: string): BusbarError {
  return new BusbarError({
    kind: 'invalid',
    reason: 'STORE_REQUEST_INVALID',
    message,
    ...(hint !== undefined && { hint }),
  });
}
