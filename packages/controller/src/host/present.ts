// SPDX-License-Identifier: Apache-2.0
import { DomainState } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { type Host, HostRole, HostState } from '@busbar/proto/gen/busbar/v1/host';
import type { SessionRegistry } from '../session/registry.ts';
import type { ClusterView } from '../view/view.ts';
import { isOnHost } from '../vm/plan.ts';
import { presentMeta } from '../vm/present.ts';

/** A host as users see it: the stored picture, and what this controller hears from its agent right now. */
export function presentHost(id: string, view: ClusterView, sessions: SessionRegistry): Host | null {
  const entry = view.tables.host.get(id);
  if (entry === undefined) return null;
  const status = view.tables['host-status'].get(id)?.record;
  const seen = sessions.observed(id);
  let allocatedMemoryBytes = 0n;
  let allocatedVcpus = 0;
  for (const { id: vmId, record } of view.tables['vm-status'].sorted()) {
    if (record.host !== id || !isOnHost(record)) continue;
    const spec = view.tables.vm.get(vmId)?.record.spec;
    allocatedMemoryBytes += spec?.memoryBytes ?? 0n;
    allocatedVcpus += spec?.cpu?.vcpus ?? 0;
  }
  return {
    meta: presentMeta(entry.record.meta, entry.modRevision),
    spec: entry.record.spec,
    status: {
      state: status?.state ?? HostState.UNKNOWN,
      message: status?.message ?? '',
      role: status?.role ?? HostRole.UNSPECIFIED,
      bootId: status?.bootId ?? '',
      inventory: status?.inventory,
      lastHeartbeatTime: seen?.heardWall,
      runningVms:
        seen?.report?.domains.filter(
          (d) => d.state === DomainState.RUNNING || d.state === DomainState.PAUSED || d.state === DomainState.STOPPING,
        ).length ?? 0,
      allocatedMemoryBytes,
      allocatedVcpus,
      leaseRemainingMs: seen?.report?.leaseRemainingMs ?? 0,
    },
  };
}
