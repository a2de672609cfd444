// SPDX-License-Identifier: Apache-2.0
import type { HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { HostStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { type HostInventory, HostRole, HostState } from '@busbar/proto/gen/busbar/v1/host';
import { cut } from '../api/validation.ts';
import type { HostObservation } from '../session/registry.ts';
import { besideText } from './alarms.ts';

/**
 * Reconciler of one host's status: what the leader hears, as a record. Pure. Heartbeats themselves are not stored:
 * the record changes only when state, reason, boot id or inventory do.
 */

/** Twelve heartbeats. Only placement and display hang on it; proving a host dead is another matter and comes with HA. */
export const UNREACHABLE_AFTER_MS = 3_000;
/** What a new leader grants agents to find it before it calls a host unreachable. */
export const LEADER_GRACE_MS = 5_000;

/** An agent reports as soon as it has looked around; this much it may take. */
export const REPORT_GRACE_MS = 10_000;

/** Reports are due every 5 s. */
export const REPORT_STALE_MS = 15_000;

/** A lease is gained within a second of connecting, and a desired state is taken at once; a busy host may take this long. */
export const OBEDIENCE_GRACE_MS = 10_000;

export function planHost(
  status: HostStatusRecord | undefined,
  seen: HostObservation | null,
  now: { readonly nowMs: number; readonly leaderSinceMs: number },
): HostStatusRecord | null {
  const { state, message } = judge(seen, now);
  // Grace of a new leader: what the former one knew stays until the agents had time to connect.
  if (state === HostState.UNKNOWN && status !== undefined) return null;
  const next: HostStatusRecord = {
    state,
    message,
    role: seen?.hello.role ?? status?.role ?? HostRole.UNSPECIFIED,
    bootId: seen?.hello.bootId ?? status?.bootId ?? '',
    inventory: seen?.inventory ?? status?.inventory,
  };
  return status !== undefined && sameStatus(status, next) ? null : next;
}

function judge(
  seen: HostObservation | null,
  now: { readonly nowMs: number; readonly leaderSinceMs: number },
): { readonly state: HostState; readonly message: string } {
  const heardMs = seen?.heardMs ?? Number.NEGATIVE_INFINITY;
  if (now.nowMs - heardMs > UNREACHABLE_AFTER_MS) {
    if (now.nowMs - now.leaderSinceMs < LEADER_GRACE_MS) return { state: HostState.UNKNOWN, message: '' };
    return { state: HostState.UNREACHABLE, message: 'the leader does not hear its agent' };
  }
  if (seen !== null && seen.beside.length > 0) {
    return { state: HostState.DEGRADED, message: `${besideText(seen.beside)}; nothing is started on either` };
  }
  if (seen?.report == null || seen.inventory === null) {
    // Alive, but blind: nothing may be placed there on the strength of what it said in a former life.
    if (seen !== null && !withinReportGrace(seen, now.nowMs))
      return { state: HostState.DEGRADED, message: 'its agent is connected but has not reported' };
    return { state: HostState.UNKNOWN, message: '' };
  }
  if (isStale(seen, now.nowMs)) {
    // A controller that stood still has itself to blame, and leads anew: the next report is due within seconds.
    if (now.nowMs - now.leaderSinceMs < LEADER_GRACE_MS) return { state: HostState.UNKNOWN, message: '' };
    return { state: HostState.DEGRADED, message: 'its agent beats but does not report' };
  }
  if (!seen.report.hypervisorHealthy && seen.hello.role !== HostRole.WITNESS) {
    return { state: HostState.DEGRADED, message: cut(seen.report.message, 1_000) || 'libvirt does not answer' };
  }
  // The hypervisor answers, but the inventory is from before it did: the next one is a second away.
  if (seen.inventory.versions?.libvirt === '' && seen.hello.role !== HostRole.WITNESS)
    return { state: HostState.UNKNOWN, message: '' };
  const disobeys = seen.hello.role === HostRole.WITNESS ? '' : disobedience(seen, seen.report, now.nowMs);
  if (disobeys !== '') return { state: HostState.DEGRADED, message: cut(`${disobeys}; ${seen.report.message}`, 1_000) };
  return { state: HostState.READY, message: cut(seen.report.message, 1_000) };
}

/** What the host said is of now, as far as anybody can know. */
export function reports(seen: HostObservation | null, nowMs: number): boolean {
  if (seen === null || seen.report === null || seen.inventory === null) return false;
  return nowMs - seen.heardMs <= UNREACHABLE_AFTER_MS && !isStale(seen, nowMs);
}

export function isStale(seen: HostObservation | null, nowMs: number): boolean {
  return nowMs - (seen?.reportedMs ?? Number.NEGATIVE_INFINITY) > REPORT_STALE_MS;
}

/** It has not reported yet, and may still. A restart of its agent does not begin this anew. */
export function withinReportGrace(seen: HostObservation, nowMs: number): boolean {
  return seen.blindSinceMs !== null && nowMs - seen.blindSinceMs <= REPORT_GRACE_MS;
}

/** Why a connected host would not start what is placed on it; empty when it would. */
function disobedience(seen: HostObservation, report: HostReport, nowMs: number): string {
  if (report.leaseRemainingMs === 0 && nowMs - seen.openedMs > OBEDIENCE_GRACE_MS) return 'it has no lease';
  const told = seen.published;
  if (told === null || nowMs - Math.max(told.sinceMs, seen.openedMs) <= OBEDIENCE_GRACE_MS) return '';
  const taken = report.accepted ?? { term: 0n, generation: 0n };
  const behind =
    taken.term < told.position.term ||
    (taken.term === told.position.term && taken.generation < told.position.generation);
  const ahead = taken.term > told.position.term;
  if (!behind && !ahead) return '';
  return `its agent does not take the leader's orders (it has term ${taken.term} generation ${taken.generation}, was told ${told.position.term}/${told.position.generation})`;
}

function sameStatus(a: HostStatusRecord, b: HostStatusRecord): boolean {
  const words = (status: HostStatusRecord) => asText({ ...status, inventory: undefined });
  return words(a) === words(b) && comparable(a.inventory) === comparable(b.inventory);
}

/** Compared in every round, and the same object in almost all of them. */
const compared = new WeakMap<HostInventory, string>();

/** Free hugepages change with every VM and are live data, no reason to write a record. */
function comparable(inventory: HostInventory | undefined): string {
  if (inventory === undefined) return '';
  let text = compared.get(inventory);
  if (text === undefined) {
    const numaNodes = inventory.numaNodes.map((numaNode) => ({
      ...numaNode,
      hugepages: numaNode.hugepages.map((pool) => ({ ...pool, free: 0n })),
    }));
    text = asText({ ...inventory, numaNodes });
    compared.set(inventory, text);
  }
  return text;
}

function asText(value: object): string {
  return JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? String(item) : item));
}
