// SPDX-License-Identifier: Apache-2.0
import type { Topology } from '../capacity/topology.ts';
import type { Loss } from './losses.ts';
import type { Member } from './refuge.ts';

/** What saves a search, or makes it smaller. */

/** All that is free in the cluster, by dimension. */
export function totalOf({ stride }: Topology, amounts: Int32Array): Float64Array {
  const total = new Float64Array(stride);
  for (let at = 0; at < amounts.length; at++) {
    total[at % stride] = (total[at % stride] as number) + Math.max(0, amounts[at] as number);
  }
  return total;
}

/** A bound that costs little: what all of them take against all that is free (`total`) on the hosts that are left. */
export function volumeSuffices(
  { stride, nodeOfHost }: Topology,
  loss: Loss,
  members: readonly Member[],
  amounts: Int32Array,
  total: Float64Array,
): boolean {
  const need = new Float64Array(stride);
  for (const { shape } of members) {
    for (const { general, isolatedOnly } of shape.whole === null ? shape.cells : [shape.whole]) {
      general.dimensions.forEach((dimension, i) => {
        const other = isolatedOnly.dimensions.indexOf(dimension);
        const least = other < 0 ? 0 : Math.min(general.amounts[i] ?? 0, isolatedOnly.amounts[other] ?? 0);
        need[dimension] = (need[dimension] ?? 0) + least;
      });
    }
  }
  const have = total.slice();
  for (const host of loss.hosts) {
    const end = (nodeOfHost[host + 1] as number) * stride;
    for (let at = (nodeOfHost[host] as number) * stride; at < end; at++) {
      have[at % stride] = (have[at % stride] as number) - Math.max(0, amounts[at] as number);
    }
  }
  return need.every((amount, dimension) => amount <= (have[dimension] as number));
}

/** Hosts with equal words are equal for all of the members; null where rules make every host its own kind. */
export function kindsOfHosts(
  { hosts, nodeOfHost, hasGeneral }: Topology,
  members: readonly Member[],
): readonly string[] | null {
  if (members.some(({ vm }) => vm.pinnedHost !== '' || vm.rules.length > 0)) return null;
  const shapes = [...new Set(members.map(({ shape }) => shape))];
  return hosts.map((_, host) => {
    const admitted = shapes.map((shape) => shape.admits[host]).join('');
    return `${admitted} ${hasGeneral.subarray(nodeOfHost[host], nodeOfHost[host + 1]).join('')}`;
  });
}
