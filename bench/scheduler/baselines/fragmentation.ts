// SPDX-License-Identifier: Apache-2.0
import type { Arrival, Capacity, Flavour } from '../workload/flavour.ts';
import { type Placer, Pool } from './pool.ts';

// Of the gradient's unit (a whole host): enough to choose among equals, too little to choose a worse one.
const FULLER_FIRST = 0.01;

/**
 * Fragmentation gradient descent (Weng et al., USENIX ATC 2023) for two dimensions: a host's fragments are what is free on
 * it but of no use for a flavour, weighted by how common the flavour is; a VM goes where it makes the fewest. Knows the
 * stream's flavours beforehand, and nothing else: no NUMA, pages, rules or N-1. The limit of what a loop over typed arrays
 * can do in this language: growth is kept for each host and flavour, and a VM changes one host.
 */
export function fragmentationGradient(hosts: number, host: Capacity, stream: readonly Arrival[]): Placer {
  const pool = new Pool(hosts, host);
  const { flavours, weights, indexOf } = mixOf(stream);
  const growth = new Float64Array(flavours.length * hosts);

  const fragments = (cpus: number, memoryMib: number): number => {
    let useless = 0;
    for (let index = 0; index < flavours.length; index++) {
      const flavour = flavours[index] as Flavour;
      if (flavour.vcpus > cpus || flavour.memoryMib > memoryMib) useless += weights[index] as number;
    }
    return useless * (cpus / host.cpus + memoryMib / host.memoryMib);
  };

  const update = (on: number): void => {
    const [cpus, memoryMib] = [pool.cpus[on] as number, pool.memoryMib[on] as number];
    const before = fragments(cpus, memoryMib);
    const keepEmpty = FULLER_FIRST * (cpus / host.cpus + memoryMib / host.memoryMib);
    for (let index = 0; index < flavours.length; index++) {
      const { vcpus, memoryMib: memory } = flavours[index] as Flavour;
      growth[index * hosts + on] =
        vcpus > cpus || memory > memoryMib
          ? Number.POSITIVE_INFINITY
          : fragments(cpus - vcpus, memoryMib - memory) - before + keepEmpty;
    }
  };

  for (let on = 0; on < hosts; on++) update(on);
  return (vm) => {
    const column = (indexOf.get(keyOf(vm)) as number) * hosts;
    let best = -1;
    let least = Number.POSITIVE_INFINITY;
    for (let on = 0; on < hosts; on++) {
      const value = growth[column + on] as number;
      if (value >= least) continue;
      best = on;
      least = value;
    }
    if (best < 0) return -1;
    pool.take(best, vm);
    update(best);
    return best;
  };
}

// A number, because a string would cost more than the placement: below 2^53 for any host of these rows.
function keyOf({ vcpus, memoryMib }: Flavour): number {
  return vcpus * 2 ** 32 + memoryMib;
}

interface KnownMix {
  readonly flavours: readonly Flavour[];
  readonly weights: Float64Array;
  readonly indexOf: ReadonlyMap<number, number>;
}

function mixOf(stream: readonly Arrival[]): KnownMix {
  const indexOf = new Map<number, number>();
  const flavours: Flavour[] = [];
  const counts: number[] = [];
  for (const { vcpus, memoryMib } of stream) {
    const key = keyOf({ vcpus, memoryMib });
    const index = indexOf.get(key) ?? flavours.push({ vcpus, memoryMib }) - 1;
    indexOf.set(key, index);
    counts[index] = (counts[index] ?? 0) + 1;
  }
  return { flavours, weights: Float64Array.from(counts, (count) => count / stream.length), indexOf };
}
