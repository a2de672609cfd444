// SPDX-License-Identifier: Apache-2.0
import { ok, type Result, refuse } from '@busbar/core/result';
import { CHECKERS, freeMemoryBytes, usedVcpus } from './checkers.ts';
import type {
  HostVerdict,
  Placement,
  PlacementPolicy,
  PlacementRequest,
  Refusal,
  SchedulableHost,
  Snapshot,
} from './model.ts';

/**
 * Chooses a host: every hard need is checked on every host, then the fitting hosts are ranked.
 * Equal scores are decided by host id, so that the answer never depends on the order of the input.
 */
export function place(snapshot: Snapshot, request: PlacementRequest): Result<Placement, Refusal> {
  const verdicts = snapshot.hosts
    .map((host) => verdict(host, request, snapshot.policy))
    .toSorted((a, b) => compareText(a.host, b.host));
  const best = verdicts
    .filter((candidate) => candidate.fits)
    .reduce<HostVerdict | null>(
      (top, candidate) => (top === null || candidate.score > top.score ? candidate : top),
      null,
    );
  return best === null ? refuse({ verdicts }) : ok({ host: best.host, verdicts });
}

function verdict(host: SchedulableHost, request: PlacementRequest, policy: PlacementPolicy): HostVerdict {
  const reasons = CHECKERS.flatMap((checker) => {
    const reason = checker.check(host, request, policy);
    return reason === null ? [] : [`${checker.name}: ${reason}`];
  });
  const fits = reasons.length === 0;
  return { host: host.id, fits, reasons, score: fits ? score(host, request, policy) : 0 };
}

/**
 * Spread the load: the share of memory (weight 2: it cannot be over-committed) and of vCPUs (weight 1)
 * that stays free after the placement. A preferred host beats any load difference; earlier beats later.
 */
function score(host: SchedulableHost, request: PlacementRequest, policy: PlacementPolicy): number {
  const usable = host.memoryBytes - policy.hostReservedMemoryBytes;
  const freeMemory = freeMemoryBytes(host, policy) - request.vm.memoryBytes - policy.vmOverheadBytes;
  const memoryShare = usable > 0n ? Number((freeMemory * 1_000_000n) / usable) / 1_000_000 : 0;
  const cpuLimit = host.onlineCpus * policy.vcpuOvercommit;
  const cpuShare = cpuLimit > 0 ? (cpuLimit - usedVcpus(host) - request.vm.vcpus) / cpuLimit : 0;
  const preference = request.preferredHosts.indexOf(host.id);
  const preferred = preference < 0 ? 0 : 10 * (request.preferredHosts.length - preference);
  return preferred + 2 * memoryShare + cpuShare;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The refusal in one line: what stands in the way, host by host. */
export function describeRefusal(refusal: Refusal): string {
  if (refusal.verdicts.length === 0) return 'the cluster has no host that runs VMs';
  return refusal.verdicts.map((v) => `${v.host}: ${v.reasons.join(', ')}`).join('; ');
}
