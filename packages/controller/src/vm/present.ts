// SPDX-License-Identifier: Apache-2.0

import type { RecordMeta, VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { ResourceMeta } from '@busbar/proto/gen/busbar/v1/common';
import type { Vm } from '@busbar/proto/gen/busbar/v1/vm';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import type { ClusterView } from '../view/view.ts';
import type { CloudInitShown } from './cloud-init.ts';
import { hardwareDigest } from './domain.ts';
import { isOnHost } from './plan.ts';

export function presentMeta(meta: RecordMeta | undefined, revision: bigint): ResourceMeta {
  return {
    id: meta?.id ?? '',
    name: meta?.name ?? '',
    revision,
    createTime: meta?.createTime,
    updateTime: meta?.updateTime,
    labels: meta?.labels ?? {},
    deleting: meta?.deleting ?? false,
  };
}

/** A VM as users see it: their part and the cluster's part in one. */
export function presentVm(
  record: VmRecord,
  revision: bigint,
  status: VmStatusRecord | undefined,
  view: ClusterView,
  cloudInit: CloudInitShown,
): Vm {
  const running = status !== undefined && isOnHost(status);
  return {
    meta: presentMeta(record.meta, revision),
    spec: record.spec === undefined ? undefined : { ...record.spec, cloudInit: cloudInit(record) },
    status: {
      phase: status?.phase ?? VmPhase.CREATING,
      message: status?.message ?? '',
      host: status?.host ?? '',
      epoch: status?.epoch ?? 0n,
      disks: (record.spec?.disks ?? []).map((disk) => {
        const id = record.diskVolumes[disk.name] ?? '';
        return {
          name: disk.name,
          volume: { kind: 'volume', id, name: view.tables.volume.get(id)?.record.meta?.name ?? '' },
        };
      }),
      startTime: status?.startTime,
      restartNeeded: running && status.startedHardware !== hardwareDigest(record),
      failedStarts: status?.failedStarts ?? 0,
      startedRevision: status?.startedRevision ?? 0n,
      placement: running ? status.placement : undefined,
      observedPlacement: running ? status.observedPlacement : undefined,
      placementReason: running ? status.placementReason : '',
      placementDrift: running ? status.placementDrift : '',
    },
  };
}

export function presentVmById(id: string, view: ClusterView, cloudInit: CloudInitShown): Vm | null {
  const entry = view.tables.vm.get(id);
  if (entry === undefined) return null;
  return presentVm(entry.record, entry.modRevision, view.tables['vm-status'].get(id)?.record, view, cloudInit);
}
