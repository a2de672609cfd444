// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { includesRole } from '@busbar/pki/role';
import type { NamedKind } from '../records/kinds.ts';
import type { Entry, Table } from '../view/table.ts';
import type { Caller } from './call.ts';

/** The refusals that every kind of resource shares, in one voice. */
export function notFound(kind: string, reference: string): BusbarError {
  return new BusbarError({
    kind: 'not-found',
    reason: `${kind.toUpperCase()}_NOT_FOUND`,
    message: `there is no ${kind} "${reference}"`,
    hint: kind === 'operation' ? 'ended operations are kept for a day' : `see the list of ${kind}s`,
  });
}

export function nameTaken(kind: string, name: string): BusbarError {
  return new BusbarError({
    kind: 'already-exists',
    reason: `${kind.toUpperCase()}_NAME_TAKEN`,
    message: `there is already a ${kind} named "${name}"`,
    hint: `choose another name, or change the existing ${kind}`,
  });
}

/** The record of a reference, or the refusal. */
export function find<K extends NamedKind>(table: Table<K>, reference: string) {
  const entry = table.find(reference);
  if (entry === undefined) throw notFound(table.kind, reference);
  return entry;
}

export function assertRevision(kind: string, name: string, entry: Entry<unknown>, revision: bigint): void {
  if (revision === 0n || revision === entry.modRevision) return;
  throw new BusbarError({
    kind: 'conflict',
    reason: `${kind.toUpperCase()}_REVISION_STALE`,
    message: `${kind} "${name}" is at revision ${entry.modRevision}, the request was made for ${revision}`,
    hint: 'read it again, apply the change to what it is now, and send that revision',
  });
}

export function assertNotDeleting(
  kind: string,
  entry: Entry<{ readonly meta?: { name: string; deleting: boolean } | undefined }>,
): void {
  if (!entry.record.meta?.deleting) return;
  throw new BusbarError({
    kind: 'precondition',
    reason: `${kind.toUpperCase()}_DELETING`,
    message: `${kind} "${entry.record.meta.name}" is being deleted`,
    hint: 'wait until it is gone',
  });
}

/** A call that operators may make, of which a part is an admin's: `what` names that part, and is empty without it. */
export function assertAdministers(caller: Caller, method: string, what: readonly string[]): void {
  if (what.length === 0 || (caller.role !== null && includesRole(caller.role, 'admin'))) return;
  throw new BusbarError({
    kind: 'forbidden',
    reason: 'ROLE_TOO_LOW',
    message: `"${caller.name}" has role ${caller.role ?? 'none'}, ${method} needs admin for ${what.join(', ')}`,
    hint: 'use a certificate with role admin, or leave that as it is',
  });
}
