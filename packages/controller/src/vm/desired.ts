// SPDX-License-Identifier: Apache-2.0

import type { DesiredState, DesiredVm, DestroyOrder, HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { DesiredRun, DomainState } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { IsolationPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import type { StorageDriver } from '@busbar/storage/driver';
import { besideText } from '../host/alarms.ts';
import type { HostObservation } from '../session/registry.ts';
import type { ClusterView } from '../view/view.ts';
import type { AccessOf } from './access.ts';
import type { CloudInitOpened } from './cloud-init.ts';
import { domainOf } from './domain.ts';
import { isOnHost, newestEpoch, shallRun, shallStop } from './plan.ts';

/**
 * What a host is told, whole: the VMs whose current epoch it owns, and the leftovers it must destroy. Pure but for the
 * tables it reads. A domain of a VM that the store does not know is never ordered to be destroyed: a store
 * restored from an old snapshot must not kill what runs.
 *
 * While starts are `held` because the store went back in time, what it says is no ground to start, stop or destroy anything:
 * then only what the host itself reports is confirmed, which takes back every start that has not begun.
 */
export function desiredFor(
  host: string,
  position: { readonly term: bigint; readonly generation: bigint },
  view: ClusterView,
  seen: Pick<HostObservation, 'boot' | 'beside' | 'report'> | null,
  storage: Pick<StorageDriver, 'diskSource'>,
  cloudInitOf: CloudInitOpened,
  accessOf: AccessOf,
  held = '',
): DesiredState {
  const report = seen?.report ?? null;
  const vms: DesiredVm[] = [];
  for (const entry of view.tables.vm.sorted()) {
    const status = view.tables['vm-status'].get(entry.id)?.record;
    if (status === undefined || status.host !== host || !isOnHost(status)) continue;
    if (held !== '' && !isThere(report, entry.id, status.epoch)) continue;
    const cloudInit = cloudInitOf(entry.record);
    // A guest that comes up without its data is configured wrongly for good. Once it runs, only its end is still asked for.
    if (cloudInit === null && status.phase === VmPhase.STARTING) continue;
    const access = accessOf(entry.id, entry.record, status);
    const run = held === '' ? runOf(entry.record, status) : DesiredRun.RUNNING;
    // Its disks do not open without a key: told to the agent now, the start would fail. To end it, none is needed.
    if (access === null && run === DesiredRun.RUNNING) continue;
    const { placement } = status;
    const domain = domainOf(
      entry.record,
      entry.modRevision,
      view,
      storage,
      cloudInit ?? undefined,
      placement,
      access ?? undefined,
    );
    if (domain === null) continue;
    vms.push({
      vmId: entry.id,
      name: entry.record.meta?.name ?? '',
      epoch: status.epoch,
      run,
      shutdownTimeoutMs: entry.record.stopTimeoutMs || entry.record.spec?.shutdownTimeoutMs || 0,
      domain,
      bootId: status.bootId,
      isolationPolicy: entry.record.spec?.isolationPolicy ?? IsolationPolicy.KEEP_RUNNING,
    });
  }
  return {
    position,
    vms,
    destroy: held === '' ? leftovers(host, view, report) : [],
    bootId: seen?.boot.bootId ?? '',
    noStart: seen === null || seen.beside.length === 0 ? held : besideText(seen.beside),
  };
}

/** The host says of exactly this epoch that it runs, or that it has ended: naming it to the host starts nothing. */
function isThere(report: HostReport | null, vmId: string, epoch: bigint): boolean {
  const told = report?.domains.find((domain) => domain.vmId === vmId && domain.epoch === epoch);
  return told !== undefined && told.state !== DomainState.STARTING;
}

function runOf(vm: VmRecord, status: VmStatusRecord): DesiredRun {
  if (!shallStop(vm, status)) return DesiredRun.RUNNING;
  const force = shallRun(vm) ? status.restartByForce : vm.stopByForce;
  return force ? DesiredRun.POWER_OFF : DesiredRun.SHUTDOWN;
}

function leftovers(host: string, view: ClusterView, report: HostReport | null): DestroyOrder[] {
  return (report?.domains ?? []).flatMap((domain) => {
    const status = view.tables['vm-status'].get(domain.vmId)?.record;
    if (status === undefined || domain.state === DomainState.ENDED) return [];
    const owns = status.host === host && isOnHost(status);
    const epochMax = owns ? status.epoch - 1n : newestEpoch(status);
    return domain.epoch <= epochMax ? [{ vmId: domain.vmId, epochMax }] : [];
  });
}
