// SPDX-License-Identifier: Apache-2.0
import { type Clock, withDeadline } from '@busbar/core/clock/clock';
import { HostRole } from '@busbar/proto/gen/busbar/v1/host';
import type { StorageDriver } from '@busbar/storage/driver';
import { besideText } from '../../host/alarms.ts';
import { reports } from '../../host/plan.ts';
import type { SessionRegistry } from '../../session/registry.ts';
import type { ClusterView } from '../../view/view.ts';
import { historyRecord } from '../behind.ts';
import type { AdoptingHost, AdoptionInput } from './plan.ts';

/** A listing of a healthy pool takes well below a second. */
const POOL_DEADLINE_MS = 10_000;

export interface AdoptionDeps {
  readonly view: ClusterView;
  readonly sessions: SessionRegistry;
  readonly storage: Pick<StorageDriver, 'listVolumes'>;
  readonly clock: Clock;
}

/** Everything that adoption looks at, as it is now. Throws when the pool does not answer. */
export async function adoptionInput(
  deps: AdoptionDeps,
  request: Pick<AdoptionInput, 'withoutHosts' | 'keep'>,
): Promise<AdoptionInput> {
  const { view, storage, clock } = deps;
  const volumes = new Set<string>(
    await withDeadline(clock, POOL_DEADLINE_MS, 'listing the volumes of the pool', () => storage.listVolumes()),
  );
  const record = historyRecord(view)?.record;
  const vms = view.tables.vm.sorted().flatMap((vm) => {
    const status = view.tables['vm-status'].get(vm.id);
    if (status === undefined) return [];
    const disks = Object.entries(vm.record.diskVolumes);
    // Before its volumes are made there is nothing to miss.
    const missingDisks =
      status.record.epoch === 0n ? [] : disks.filter(([, id]) => !volumes.has(id)).map(([name]) => name);
    return [{ vm, status, missingDisks }];
  });
  const signs = record?.behindSince === undefined ? [] : record.signs;
  return { signs, behind: record?.behindSince !== undefined, hosts: adoptingHosts(deps), vms, ...request };
}

/** All that may run VMs: in the records, heard, or named by a VM's record. */
function adoptingHosts({ view, sessions, clock }: AdoptionDeps): readonly AdoptingHost[] {
  const owners = view.tables['vm-status'].sorted().map(({ record }) => record.host);
  const names = new Set([...view.tables.host.ids(), ...sessions.hosts(), ...owners.filter((host) => host !== '')]);
  return [...names].sort().flatMap((host): readonly AdoptingHost[] => {
    const seen = sessions.observed(host);
    const role = seen?.hello.role ?? view.tables['host-status'].get(host)?.record.role;
    if (role === HostRole.WITNESS) return [];
    if (seen === null || !seen.connected || !reports(seen, clock.nowMs()))
      return [
        {
          host,
          report: null,
          bootId: '',
          twice: '',
          message: seen?.connected ? 'it has not reported yet' : 'its agent is not heard',
        },
      ];
    const healthy = seen.report?.hypervisorHealthy === true;
    const message = healthy ? '' : 'its hypervisor does not answer: what it ran last counts';
    const twice = seen.beside.length === 0 ? '' : `${host}: ${besideText(seen.beside)}`;
    return [{ host, report: seen.report, bootId: seen.boot.bootId, twice, message }];
  });
}
