// SPDX-License-Identifier: Apache-2.0

import { volumeBound } from './bound.ts';
import type { Arrival } from './flavour.ts';
import { HOST } from './flavour.ts';
import { generate, MIXES, type Mix, meanOf } from './generate.ts';

export type WorkloadName = Mix | 'trace';
export const WORKLOADS: readonly WorkloadName[] = ['ot', 'skew', 'uniform', 'trace'];

/** A stream that ends some way behind the point where any cluster of so many hosts has to refuse. */
export interface Stream {
  readonly arrivals: readonly Arrival[];
  /** The volume bound of its prefixes. */
  readonly bound: number;
}

// How much longer than its bound a stream is, so that "placed in all" has something to tell.
const BEYOND_BOUND = 1.15;
// Seed n of the trace begins where the n-th of so many equal parts does, and goes round.
const TRACE_PARTS = 5;

export function streamOf(name: WorkloadName, seed: number, hosts: number, trace: readonly Arrival[]): Stream {
  const arrivals = name === 'trace' ? rotated(trace, seed) : generate(MIXES[name], seed, enough(name, hosts));
  const bound = volumeBound(arrivals, hosts, HOST);
  return { arrivals: arrivals.slice(0, Math.ceil(bound * BEYOND_BOUND)), bound };
}

/** A fifth more than the mean of the scarcer dimension says, and the largest VMs of a small cluster. */
function enough(mix: Mix, hosts: number): number {
  const mean = meanOf(MIXES[mix]);
  const perHost = Math.max(HOST.cpus / mean.vcpus, HOST.memoryMib / 1024 / mean.memoryGib);
  return Math.ceil(perHost * hosts * BEYOND_BOUND * 1.2) + 100;
}

function rotated(trace: readonly Arrival[], seed: number): readonly Arrival[] {
  const from = Math.floor(((seed - 1) % TRACE_PARTS) * (trace.length / TRACE_PARTS));
  return [...trace.slice(from), ...trace.slice(0, from)];
}
