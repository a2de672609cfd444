// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import { seededRandom } from '@busbar/core/random';
import type { Arrival } from './flavour.ts';

export interface Share {
  readonly vcpus: number;
  readonly memoryGib: number;
  /** Of all VMs; the shares of a mix add up to 1. */
  readonly share: number;
}

/**
 * ot: what runs in a substation or a plant: soft PLCs and protection functions of one or two cores, gateways, HMIs, and a
 *   few SCADA servers and historians. Needs less memory per CPU than the host has: CPU binds.
 * skew: flavours with much CPU and little memory, and the reverse; 4.06 GiB per vCPU in the mean, where the host has 4.
 *   Both dimensions bind, and a host that gets the wrong halves strands one of them.
 * uniform: one size; nothing to be clever about.
 */
export const MIXES = {
  ot: [
    { vcpus: 1, memoryGib: 1, share: 0.12 },
    { vcpus: 2, memoryGib: 2, share: 0.2 },
    { vcpus: 2, memoryGib: 4, share: 0.22 },
    { vcpus: 4, memoryGib: 8, share: 0.24 },
    { vcpus: 4, memoryGib: 12, share: 0.06 },
    { vcpus: 8, memoryGib: 16, share: 0.11 },
    { vcpus: 8, memoryGib: 24, share: 0.03 },
    { vcpus: 16, memoryGib: 32, share: 0.02 },
  ],
  skew: [
    { vcpus: 1, memoryGib: 8, share: 0.11 },
    { vcpus: 2, memoryGib: 4, share: 0.135 },
    { vcpus: 2, memoryGib: 16, share: 0.18 },
    { vcpus: 4, memoryGib: 8, share: 0.15 },
    { vcpus: 4, memoryGib: 16, share: 0.05 },
    { vcpus: 4, memoryGib: 32, share: 0.12 },
    { vcpus: 8, memoryGib: 16, share: 0.14 },
    { vcpus: 8, memoryGib: 64, share: 0.065 },
    { vcpus: 16, memoryGib: 32, share: 0.05 },
  ],
  uniform: [{ vcpus: 2, memoryGib: 4, share: 1 }],
} as const satisfies Readonly<Record<string, readonly Share[]>>;

export type Mix = keyof typeof MIXES;

// A quarter of deployments are redundant pairs, as in the trace where batches have 4.4 VMs in the mean but mostly 1.
const PAIR_SHARE = 0.25;

/** The same seed gives the same stream, and a longer one begins as a shorter one. */
export function generate(mix: readonly Share[], seed: number, count: number): Arrival[] {
  const random = seededRandom(seed);
  const arrivals: Arrival[] = [];
  let batch = 0;
  let paired = false;
  while (arrivals.length < count) {
    const { vcpus, memoryGib } = draw(mix, random.next());
    arrivals.push({ vcpus, memoryMib: memoryGib * 1024, batch });
    paired = !paired && random.next() < PAIR_SHARE;
    if (!paired) batch++;
  }
  return arrivals;
}

function draw(mix: readonly Share[], point: number): Share {
  let left = point;
  for (const share of mix) {
    left -= share.share;
    if (left < 0) return share;
  }
  // The shares' sum may be a rounding error below 1.
  const last = mix.at(-1);
  assert(last !== undefined, 'a mix has flavours');
  return last;
}

export function meanOf(mix: readonly Share[]): { readonly vcpus: number; readonly memoryGib: number } {
  return {
    vcpus: mix.reduce((sum, { vcpus, share }) => sum + vcpus * share, 0),
    memoryGib: mix.reduce((sum, { memoryGib, share }) => sum + memoryGib * share, 0),
  };
}
