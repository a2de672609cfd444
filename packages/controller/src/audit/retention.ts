// SPDX-License-Identifier: Apache-2.0
import type { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { deleteRecord } from '../records/kinds.ts';
import type { Write } from '../store/cluster-store.ts';
import type { Entry } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';

/**
 * A record is 0.4 KB in etcd and 0.6 KB in the memory of each controller: 10,000 of them are 4 MB and 6 MB. What
 * changed something has its share for itself, so that refusals cannot push it out.
 */
export const KEPT_CHANGES = 8_000;
export const KEPT_OTHERS = 2_000;
/** IEC 62443-2-1 leaves the time to the plant; three months is what sites without an archive ask for. */
export const KEPT_MS = 90 * 24 * 3_600_000;

/** Audit records that are no longer to be kept, oldest first. */
export function expiredAuditRecords(view: ClusterView, wallTime: Date): readonly Write[] {
  const all = view.tables.audit.oldestFirst();
  const old = [
    ...surplus(
      all.filter(({ record }) => record.changed),
      KEPT_CHANGES,
      wallTime,
    ),
    ...surplus(
      all.filter(({ record }) => !record.changed),
      KEPT_OTHERS,
      wallTime,
    ),
  ];
  return old.map((entry) => deleteRecord('audit', entry.id));
}

function surplus(entries: readonly Entry<AuditRecord>[], keep: number, wallTime: Date): readonly Entry<AuditRecord>[] {
  const from = Math.max(0, entries.length - keep);
  return entries.filter(
    ({ record }, index) => index < from || wallTime.getTime() - (record.time?.getTime() ?? 0) > KEPT_MS,
  );
}
