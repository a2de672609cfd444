// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { HostId } from '@busbar/core/ids';
import type { VmRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { HostVerdict, PlacementPreview } from '@busbar/proto/gen/busbar/v1/vm';
import { RunPolicy } from '@busbar/proto/gen/busbar/v1/vm';
import type { PlacedVm, PlacementPolicy, Snapshot, HostVerdict as Verdict } from '@busbar/scheduler/model';
import { createPlanner } from '@busbar/scheduler/planner';
import type { Api } from '../api/call.ts';
import { schedulableHosts } from '../host/schedulable.ts';
import type { ClusterView } from '../view/view.ts';
import { presentPlacement, restorePlacement } from './placed.ts';
import { isOnHost } from './plan.ts';
import { requestOf } from './request.ts';

/**
 * What placement sees of the cluster: hosts with their inventory, and the VMs that hold resources, with what was decided for
 * them. The leader, who decides, also leaves out every host that does not report to it now (`isReporting`); a preview goes by the
 * records, since the controller that was asked may hear less than the leader.
 */
export function snapshotOf(
  view: ClusterView,
  policy: PlacementPolicy,
  isReporting: (host: string) => boolean = () => true,
): Snapshot {
  const hosts = schedulableHosts(view, isReporting);
  const byId = new Map(hosts.map((host) => [host.id, host]));
  const placed = view.tables.vm.sorted().flatMap((entry): PlacedVm[] => {
    const status = view.tables['vm-status'].get(entry.id)?.record;
    if (status === undefined || !isOnHost(status)) return [];
    const host = byId.get(status.host as HostId);
    // A host that placement does not know (a witness, a removed record) has nothing to give or to keep.
    if (host === undefined) return [];
    const vm = requestOf(entry.record, view);
    return [{ vm, placement: restorePlacement(status.placement, vm, host) }];
  });
  return { hosts, placed, policy };
}

export function previewPlacement(api: Api, record: VmRecord): PlacementPreview | undefined {
  if (record.spec?.runPolicy !== RunPolicy.RUNNING) return undefined;
  const planner = createPlanner(snapshotOf(api.view, api.policy));
  const vm = requestOf(record, api.view);
  const decided = planner.decide(vm);
  return {
    host: decided.ok ? decided.value.host : '',
    verdicts: planner.explain(vm).map(presentVerdict),
    placement: decided.ok ? presentPlacement(decided.value) : undefined,
  };
}

export function presentVerdict({ host, fits, refusals, score }: Verdict): HostVerdict {
  return {
    host,
    fits,
    refusals: refusals.map(({ checker, reason }) => ({ checker, reason })),
    scoreParts: score.map(({ name, value }) => ({ name, value })),
  };
}

/** A VM that shall run and fits nowhere is refused before anything is made. */
export function assertPlaceable(api: Api, vm: VmRecord): void {
  if (vm.spec?.runPolicy !== RunPolicy.RUNNING) return;
  const decided = createPlanner(snapshotOf(api.view, api.policy)).decide(requestOf(vm, api.view));
  if (decided.ok) return;
  throw new BusbarError({
    kind: 'exhausted',
    reason: 'NO_HOST_FITS',
    message: `no host can run "${vm.meta?.name}" now: ${decided.error.summary}`,
    hint: 'make room, ask for less, or create it with run policy "stopped"',
  });
}
