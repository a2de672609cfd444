// SPDX-License-Identifier: Apache-2.0
import type { Arrival, Capacity } from './flavour.ts';

/**
 * The volume bound: nobody can place more of the stream, in its order and without refusing, than its longest prefix whose
 * sums of CPUs and of memory fit the cluster's. (In all, more can be placed: who refuses big VMs has room for small ones.)
 */
export function volumeBound(stream: Iterable<Arrival>, hosts: number, host: Capacity): number {
  let cpus = hosts * host.cpus;
  let memory = hosts * host.memoryMib;
  let placed = 0;
  for (const { vcpus, memoryMib } of stream) {
    cpus -= vcpus;
    memory -= memoryMib;
    if (cpus < 0 || memory < 0) break;
    placed++;
  }
  return placed;
}
