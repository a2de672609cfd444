// SPDX-License-Identifier: Apache-2.0
import type { Arrival, Capacity, Flavour } from '../workload/flavour.ts';

/** Equal hosts without anything but CPUs and memory: what a textbook algorithm sees. */
export class Pool {
  readonly hosts: number;
  readonly host: Capacity;
  readonly cpus: Float64Array;
  readonly memoryMib: Float64Array;

  constructor(hosts: number, host: Capacity) {
    this.hosts = hosts;
    this.host = host;
    this.cpus = new Float64Array(hosts).fill(host.cpus);
    this.memoryMib = new Float64Array(hosts).fill(host.memoryMib);
  }

  fits(index: number, { vcpus, memoryMib }: Flavour): boolean {
    return (this.cpus[index] ?? 0) >= vcpus && (this.memoryMib[index] ?? 0) >= memoryMib;
  }

  take(index: number, { vcpus, memoryMib }: Flavour): void {
    this.cpus[index] = (this.cpus[index] ?? 0) - vcpus;
    this.memoryMib[index] = (this.memoryMib[index] ?? 0) - memoryMib;
  }
}

/** Gives the VM a host and takes its resources; -1 when no host has them. */
export type Placer = (vm: Flavour) => number;

export interface Packing {
  /** VMs placed before the first refusal. */
  readonly first: number;
  /** Of the whole stream, going on after refusals. */
  readonly total: number;
}

export function pack(place: Placer, stream: readonly Arrival[]): Packing {
  let first: number | null = null;
  let total = 0;
  for (const [index, vm] of stream.entries()) {
    if (place(vm) >= 0) total++;
    else first ??= index;
  }
  return { first: first ?? stream.length, total };
}
