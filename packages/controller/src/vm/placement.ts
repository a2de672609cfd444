// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import type { HostId, NetworkId, VmId } from '@busbar/core/ids';
import type { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { HostRole, HostState } from '@busbar/proto/gen/busbar/v1/host';
import type { PlacementPreview } from '@busbar/proto/gen/busbar/v1/vm';
import { RunPolicy } from '@busbar/proto/gen/busbar/v1/vm';
import type { PlacedVm, PlacementPolicy, PlacementRequest, SchedulableHost, Snapshot } from '@busbar/scheduler/model';
import { describeRefusal, place } from '@busbar/scheduler/place';
import type { Api } from '../api/call.ts';
import type { ClusterView } from '../view/view.ts';
import { isOnHost } from './plan.ts';

/**
 * What placement sees of the cluster: hosts with their inventory, and on each the VMs that hold its resources. The leader, who
 * decides, also leaves out every host that does not report to it now (`isReporting`); a preview goes by the records, since
 * the controller that was asked may hear less than the leader. `statusOf`: what holds resources, as the leader has planned it
 * but not written yet.
 */
export function snapshotOf(
  view: ClusterView,
  policy: PlacementPolicy,
  known: {
    readonly isReporting?: (host: string) => boolean;
    readonly statusOf?: (vmId: string) => VmStatusRecord | undefined;
  } = {},
): Snapshot {
  const { isReporting = () => true, statusOf = (id) => view.tables['vm-status'].get(id)?.record } = known;
  const byHost = new Map<string, PlacedVm[]>();
  for (const entry of view.tables.vm.sorted()) {
    const status = statusOf(entry.id);
    if (status === undefined || !isOnHost(status)) continue;
    const list = byHost.get(status.host) ?? [];
    list.push(placedVm(entry.record));
    byHost.set(status.host, list);
  }
  const networks = view.tables.network.sorted();
  const hosts = view.tables.host.sorted().flatMap((entry): SchedulableHost[] => {
    const status = view.tables['host-status'].get(entry.id)?.record;
    if (status?.role !== HostRole.HYPERVISOR) return [];
    const bridges = new Set((status.inventory?.bridges ?? []).map((bridge) => `${bridge.kind}/${bridge.name}`));
    return [
      {
        id: entry.id as HostId,
        notSchedulable:
          status.state !== HostState.READY
            ? status.message || status.state.replace('HOST_STATE_', '').toLowerCase()
            : entry.record.spec?.unschedulable
              ? 'unschedulable'
              : isReporting(entry.id)
                ? ''
                : 'its agent has not reported to the leader yet',
        labels: entry.record.meta?.labels ?? {},
        onlineCpus: status.inventory?.cpu?.onlineCpus ?? 0,
        memoryBytes: status.inventory?.memoryBytes ?? 0n,
        networks: new Set(
          networks
            .filter((network) => bridges.has(`${network.record.spec?.kind}/${network.record.spec?.bridge}`))
            .map((network) => network.id as NetworkId),
        ),
        vms: byHost.get(entry.id) ?? [],
      },
    ];
  });
  return { hosts, policy };
}

function placedVm(vm: VmRecord): PlacedVm {
  return {
    id: (vm.meta?.id ?? '') as VmId,
    name: vm.meta?.name ?? '',
    vcpus: vm.spec?.cpu?.vcpus ?? 0,
    memoryBytes: vm.spec?.memoryBytes ?? 0n,
    antiAffinityGroup: vm.spec?.placement?.antiAffinityGroup ?? '',
  };
}

export function requestOf(vm: VmRecord, view: ClusterView): PlacementRequest {
  const placement = vm.spec?.placement;
  return {
    vm: placedVm(vm),
    hostSelector: placement?.hostSelector ?? {},
    pinnedHost: placement?.pinnedHost ?? '',
    preferredHosts: placement?.preferredHosts ?? [],
    networks: (vm.spec?.nics ?? []).map((nic) => ({
      id: nic.network as NetworkId,
      name: view.tables.network.get(nic.network)?.record.meta?.name ?? nic.network,
    })),
  };
}

export function previewPlacement(api: Api, vm: VmRecord): PlacementPreview | undefined {
  if (vm.spec?.runPolicy !== RunPolicy.RUNNING) return undefined;
  const result = place(snapshotOf(api.view, api.policy), requestOf(vm, api.view));
  const verdicts = result.ok ? result.value.verdicts : result.error.verdicts;
  return {
    host: result.ok ? result.value.host : '',
    verdicts: verdicts.map((verdict) => ({ ...verdict, reasons: [...verdict.reasons] })),
  };
}

/** A VM that shall run and fits nowhere is refused before anything is made. */
export function assertPlaceable(api: Api, vm: VmRecord): void {
  if (vm.spec?.runPolicy !== RunPolicy.RUNNING) return;
  const result = place(snapshotOf(api.view, api.policy), requestOf(vm, api.view));
  if (result.ok) return;
  throw new BusbarError({
    kind: 'exhausted',
    reason: 'NO_HOST_FITS',
    message: `no host can run "${vm.meta?.name}" now: ${describeRefusal(result.error)}`,
    hint: 'make room, ask for less, or create it with run policy "stopped"',
  });
}
