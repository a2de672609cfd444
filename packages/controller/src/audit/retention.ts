// SPDX-License-Identifier: Apache-2.0
import { deleteRecord } from '../records/kinds.ts';
import { surplus } from '../records/surplus.ts';
import type { Write } from '../store/cluster-store.ts';
import { AUDIT_SORTS, type AuditPolicy, type AuditSort, floorMs, KEPT_FREELY, roomFor } from './policy.ts';
import type { AuditTally } from './tally.ts';

/** In one round of the clean-up: ten transactions. The next round is a minute later. */
const REMOVED_AT_ONCE = 1_000;

/**
 * Audit records that may go and must. Nothing goes before its time. What is beyond it stays while there is room; then the
 * oldest of whoever has the most goes first, so that nobody's records make place for another's.
 */
export function expiredAuditRecords(tally: AuditTally, policy: AuditPolicy, wallTime: Date): readonly Write[] {
  const ids = AUDIT_SORTS.flatMap((sort) => expiredOf(tally, policy, sort, wallTime.getTime()));
  return ids.slice(0, REMOVED_AT_ONCE).map((id) => deleteRecord('audit', id));
}

function expiredOf(tally: AuditTally, policy: AuditPolicy, sort: AuditSort, nowMs: number): readonly string[] {
  const count = tally.total(sort) - Math.floor(KEPT_FREELY * roomFor(policy, sort));
  if (count <= 0) return [];
  const endMs = nowMs - floorMs(policy, sort);
  const all = [...tally.callers(sort)].flatMap(([caller, own]) =>
    [...own].map(([id, timeMs]) => ({ id, timeMs, caller })),
  );
  all.sort((a, b) => a.timeMs - b.timeMs);
  return surplus(
    all,
    Math.min(count, REMOVED_AT_ONCE),
    ({ caller }) => caller,
    // A time that is not known is never old enough.
    ({ timeMs }) => timeMs < endMs,
  ).map(({ id }) => id);
}
