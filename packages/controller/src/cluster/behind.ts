// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { type DomainReport, DomainState, type HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { StoreRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { StoreHistory } from '../store/cluster-store.ts';
import type { Entry } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { newestEpoch } from '../vm/plan.ts';

/**
 * A store that went back in time starts nothing (docs/adr/0044). This file says, purely, what shows that it did:
 *
 *  - the store itself: another etcd cluster id, or a log shorter than its revision can have come from (a restored
 *    snapshot keeps its revision and begins a new log). Seen before any host is heard;
 *  - agents, which remember on disk: an epoch above the store's, a VM that runs and that the store does not know,
 *    orders of a later term, a revision that the store has not reached.
 *
 * None of it happens in normal life. Agents learn epochs, terms and revisions from leaders, who learn them from their view of
 * the store; a new leader's view holds all that its predecessors could write. Whoever judges does so on a view brought up to
 * date after the reports came: reports can then only be as new as the view.
 */
export const HISTORY_ID = 'history';

/** A member reads its log and its revision one after the other; in between it applies a few entries at most. */
const LOG_LEAD_SLACK = 32n;
/** More signs help nobody, and stay in the record. */
const SIGNS_MAX = 20;

export interface HostWord {
  readonly host: string;
  readonly report: HostReport;
}

export function historyRecord(view: ClusterView): Entry<StoreRecord> | undefined {
  return view.tables.store.get(HISTORY_ID);
}

/** Why nothing starts, as one line; empty when the store is not known to have gone back in time. */
export function behindMessage(view: ClusterView): string {
  const record = historyRecord(view)?.record;
  if (record?.behindSince === undefined) return '';
  return `STORE_BEHIND: the cluster store went back in time (${record.signs[0] ?? 'as was seen before'}); nothing starts until the cluster is adopted`;
}

export const ADOPT_HINT = 'see "busbar cluster adopt --plan", then "busbar cluster adopt --run"';

export function assertNotBehind(view: ClusterView): void {
  const message = behindMessage(view);
  if (message === '') return;
  throw new BusbarError({
    kind: 'precondition',
    reason: 'STORE_BEHIND',
    message: message.replace(/^STORE_BEHIND: /, ''),
    hint: ADOPT_HINT,
  });
}

/** By how much the revision is ahead of the log. */
export function logLead(history: StoreHistory): bigint {
  return history.revision - history.logLength;
}

/** What the store says of itself. A store without a record is new, or of a former version that had none. */
export function historySigns(record: StoreRecord | undefined, history: StoreHistory): readonly string[] {
  const signs: string[] = [];
  if (record !== undefined && record.clusterId !== history.clusterId)
    signs.push(`etcd is another cluster than before (id ${history.clusterId}, was ${record.clusterId})`);
  if (logLead(history) > (record?.logLead ?? 0n) + LOG_LEAD_SLACK)
    signs.push(
      `etcd was restored from a snapshot: its log has ${history.logLength} entries, its revision is ${history.revision}`,
    );
  return signs;
}

/** What hosts say. `position` is what this leader would tell agents now. */
export function reportSigns(
  words: readonly HostWord[],
  view: ClusterView,
  position: { readonly term: bigint; readonly generation: bigint },
): readonly string[] {
  const unknown = new Set((historyRecord(view)?.record.unknownVms ?? []).map(({ vmId }) => vmId));
  const signs: string[] = [];
  for (const { host, report } of words) {
    const accepted = report.accepted?.term ?? 0n;
    if (accepted > position.term)
      signs.push(`${host} took orders of term ${accepted}, the leader's is ${position.term}`);
    else if (report.storeRevision > position.generation)
      signs.push(`${host} knew the store at revision ${report.storeRevision}, it is at ${position.generation}`);
    for (const domain of report.domains) {
      const sign = domainSign(host, domain, view, unknown);
      if (sign !== null) signs.push(sign);
      if (signs.length >= SIGNS_MAX) return signs;
    }
  }
  return signs;
}

function domainSign(
  host: string,
  domain: DomainReport,
  view: ClusterView,
  unknown: ReadonlySet<string>,
): string | null {
  const status = view.tables['vm-status'].get(domain.vmId)?.record;
  const isOver = domain.state === DomainState.ENDED;
  if (status === undefined) {
    // The end of a deleted VM is told until the agent is told to forget it.
    if (isOver || unknown.has(domain.vmId)) return null;
    return `${host} runs VM ${shown(domain.vmId)}, which the store does not know`;
  }
  if (!isAhead(domain, status)) return null;
  const name = view.tables.vm.get(domain.vmId)?.record.meta?.name ?? domain.vmId;
  return `${host} ${isOver ? 'ran' : 'runs'} VM "${name}" with epoch ${domain.epoch}, the store has ${newestEpoch(status)}`;
}

/** What adoption put below the floor is known. */
function isAhead(domain: DomainReport, status: VmStatusRecord): boolean {
  return domain.epoch > newestEpoch(status);
}

/** A host may say anything for an id. */
function shown(vmId: string): string {
  return vmId.slice(0, 36);
}
