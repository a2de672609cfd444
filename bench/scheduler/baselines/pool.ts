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

/** How far somebody got with a stream. */
export interface Packing {
  /** VMs placed before the first refusal. */
  readonly first: number;
  /** Of the whole stream, going on after refusals. */
  readonly total: number;
  /** What the placed VMs of the whole stream have: who refuses the big ones has more VMs with less. */
  readonly vcpus: number;
  readonly memoryMib: number;
}

export function pack(place: Placer, stream: readonly Arrival[]): Packing {
  return packingOf(
    stream,
    stream.map((vm) => place(vm) >= 0),
  );
}

export function packingOf(stream: readonly Arrival[], placed: readonly boolean[]): Packing {
  const refusal = placed.indexOf(false);
  const got = stream.filter((_, index) => placed[index] === true);
  return {
    first: refusal < 0 ? placed.length : refusal,
    total: got.length,
    vcpus: got.reduce((sum, { vcpus }) => sum + vcpus, 0),
    memoryMib: got.reduce((sum, { memoryMib }) => sum + memoryMib, 0),
  };
}
