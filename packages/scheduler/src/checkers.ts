// SPDX-License-Identifier: Apache-2.0
import type { PlacementPolicy, PlacementRequest, SchedulableHost } from './model.ts';

/** One hard need. Returns the reason of a refusal with its numbers, or null when the host passes. */
export interface Checker {
  readonly name: string;
  check(host: SchedulableHost, request: PlacementRequest, policy: PlacementPolicy): string | null;
}

const MIB = 1024n ** 2n;

export function freeMemoryBytes(host: SchedulableHost, policy: PlacementPolicy): bigint {
  const used = host.vms.reduce((sum, vm) => sum + vm.memoryBytes + policy.vmOverheadBytes, 0n);
  return host.memoryBytes - policy.hostReservedMemoryBytes - used;
}

export function usedVcpus(host: SchedulableHost): number {
  return host.vms.reduce((sum, vm) => sum + vm.vcpus, 0);
}

/** In the order in which an engineer would ask. All are asked, so that a refusal names everything that is in the way. */
export const CHECKERS: readonly Checker[] = [
  { name: 'state', check: (host) => host.notSchedulable || null },
  {
    name: 'pinned-host',
    check: (host, request) =>
      request.pinnedHost === '' || request.pinnedHost === host.id ? null : `pinned to ${request.pinnedHost}`,
  },
  {
    name: 'host-selector',
    check(host, request) {
      const missing = Object.entries(request.hostSelector).filter(([key, value]) => host.labels[key] !== value);
      return missing.length === 0
        ? null
        : `label ${missing.map(([key, value]) => `${key}=${value}`).join(', ')} missing`;
    },
  },
  {
    name: 'network',
    check(host, request) {
      const missing = request.networks.filter((network) => !host.networks.has(network.id));
      return missing.length === 0 ? null : `no bridge for ${missing.map((network) => network.name).join(', ')}`;
    },
  },
  {
    name: 'anti-affinity',
    check(host, request) {
      const group = request.vm.antiAffinityGroup;
      const partner =
        group === '' ? undefined : host.vms.find((vm) => vm.antiAffinityGroup === group && vm.id !== request.vm.id);
      return partner === undefined ? null : `"${partner.name}" of group "${group}" is here`;
    },
  },
  {
    name: 'memory',
    check(host, request, policy) {
      const need = request.vm.memoryBytes + policy.vmOverheadBytes;
      const free = freeMemoryBytes(host, policy);
      return need <= free ? null : `needs ${need / MIB} MiB, ${free < 0n ? 0n : free / MIB} MiB free`;
    },
  },
  {
    name: 'cpu',
    check(host, request, policy) {
      const limit = Math.floor(host.onlineCpus * policy.vcpuOvercommit);
      const free = limit - usedVcpus(host);
      return request.vm.vcpus <= free
        ? null
        : `needs ${request.vm.vcpus} vCPUs, ${Math.max(0, free)} of ${limit} free (${host.onlineCpus} CPUs × ${policy.vcpuOvercommit})`;
    },
  },
];
