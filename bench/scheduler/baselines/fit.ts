// SPDX-License-Identifier: Apache-2.0
import type { Capacity } from '../workload/flavour.ts';
import { type Placer, Pool } from './pool.ts';

/** The first host that has room. */
export function firstFit(hosts: number, host: Capacity): Placer {
  const pool = new Pool(hosts, host);
  return (vm) => {
    for (let index = 0; index < hosts; index++) {
      if (!pool.fits(index, vm)) continue;
      pool.take(index, vm);
      return index;
    }
    return -1;
  };
}

/** The host with the least left over: the shortest vector of what stays free, as shares of the host. */
export function bestFit(hosts: number, host: Capacity): Placer {
  const pool = new Pool(hosts, host);
  return (vm) => {
    let best = -1;
    let least = Number.POSITIVE_INFINITY;
    for (let index = 0; index < hosts; index++) {
      if (!pool.fits(index, vm)) continue;
      const cpus = ((pool.cpus[index] ?? 0) - vm.vcpus) / host.cpus;
      const memory = ((pool.memoryMib[index] ?? 0) - vm.memoryMib) / host.memoryMib;
      const left = cpus * cpus + memory * memory;
      if (left >= least) continue;
      best = index;
      least = left;
    }
    if (best >= 0) pool.take(best, vm);
    return best;
  };
}
