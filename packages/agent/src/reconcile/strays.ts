// SPDX-License-Identifier: Apache-2.0
import type { Epoch, VmId } from '@busbar/core/ids';
import { DesiredRun } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { DomainEnd, DomainObservation } from '../driver/host-driver.ts';
import type { Desired } from './desired.ts';
import { isOver, max, NO_MEMORY, type VmMemory } from './memory.ts';

/**
 * A hypervisor can lose a domain whose QEMU runs on (libvirtd restarted and its record of the domain was gone). Whoever
 * hears that the domain ended may start the VM elsewhere, and two would write. So of every domain whose absence would
 * let this host say "it is over", the kernel is asked whether a QEMU of it is there; if so it counts as a running domain.
 */
export const STRAY = 'the hypervisor has lost this domain; its QEMU still runs';

export interface StraySources {
  readonly desired: Desired | undefined;
  readonly memory: ReadonlyMap<VmId, VmMemory>;
  readonly domains: readonly DomainObservation[];
  readonly ends: readonly DomainEnd[];
}

/**
 * The VMs that are not listed and whose end hangs on it, each with the epoch that its QEMU would be of. A command line
 * does not tell the epoch: it is the one that was started here last, or else the one that somebody calls over.
 */
export function suspects({ desired, memory, domains, ends }: StraySources): ReadonlyMap<VmId, bigint> {
  const listed = new Set<VmId>(domains.map(({ vmId }) => vmId));
  const found = new Map<VmId, bigint>();
  const suspect = (vmId: VmId, epoch: bigint) => {
    const known = memory.get(vmId) ?? NO_MEMORY;
    if (listed.has(vmId) || !isOver(known) || epoch <= known.endedEpoch) return;
    found.set(vmId, max(epoch, found.get(vmId) ?? 0n));
  };
  for (const { vmId, epoch } of ends) suspect(vmId, epoch);
  // Off already, as far as the hypervisor says.
  for (const [vmId, vm] of desired?.vms ?? []) if (vm.run !== DesiredRun.RUNNING) suspect(vmId, vm.epoch);
  for (const [vmId, epoch] of desired?.destroyUpTo ?? []) suspect(vmId, epoch);
  for (const [vmId, known] of memory) if (!listed.has(vmId) && !isOver(known)) found.set(vmId, known.startedEpoch);
  return found;
}

export function strayDomain(vmId: VmId, epoch: bigint, desired: Desired | undefined): DomainObservation {
  const name = desired?.vms.get(vmId)?.name ?? vmId;
  return {
    vmId,
    name,
    epoch: epoch as Epoch,
    specRevision: 0n,
    state: 'running',
    message: STRAY,
    placement: undefined,
  };
}
