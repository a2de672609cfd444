// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import type { Random } from '@busbar/core/random';
import type { Host, HugepageMib, NumaNode, PlacedCell, PlacedVm, SmtPolicy, Vm } from '@busbar/scheduler/model';
import { hostOf, type NodeShape, pinnedVm } from '../ours/model.ts';

/** A host with VMs on it, and one more that asks for room. */
export interface NumaCase {
  readonly host: Host;
  readonly placed: readonly PlacedVm[];
  readonly asked: Vm;
}

const GIB = 1024;
// Chosen, like the sizes below, so that about as many cases fit as do not.
const MOST_BUSY = 0.8;
const PAGE_SIZES = [0, 2, 1024] as const satisfies readonly HugepageMib[];
const SMT_POLICIES = ['prefer', 'isolate', 'require'] as const satisfies readonly SmtPolicy[];

const upTo = (random: Random, most: number): number => Math.floor(random.next() * (most + 1));
const oneOf = <T>(random: Random, choices: readonly T[]): T => choices[upTo(random, choices.length - 1)] as T;

/**
 * Small, crowded and uneven hosts, so that both answers are common and it takes the right cells, cores and pools to find
 * room. Guests have at most 4 cells: Nova's time grows with the permutations, and 8 nodes have 1,680 of 4.
 */
export function randomCase(random: Random): NumaCase {
  const threadsPerCore = oneOf(random, [1, 2] as const);
  const nodes = oneOf(random, [1, 1, 2, 2, 2, 4, 4, 8]);
  const shapes = Array.from({ length: nodes }, () => randomNode(random, threadsPerCore));
  const host = hostOf(0, shapes);
  const placed = host.numaNodes.flatMap((node) => occupy(random, host, node));
  const page = oneOf(random, PAGE_SIZES);
  // Sometimes one more than the host has nodes.
  const cells = Array.from({ length: 1 + upTo(random, Math.min(nodes, 3)) }, () => ({
    vcpus: 1 + upTo(random, 3),
    memoryMib: (1 + upTo(random, 1)) * GIB,
  }));
  const even = random.next() < 0.5 ? cells.map(() => cells[0] as (typeof cells)[number]) : cells;
  return { host, placed, asked: pinnedVm('asked', even, { smt: oneOf(random, SMT_POLICIES), hugepageMib: page }) };
}

function randomNode(random: Random, threadsPerCore: 1 | 2): NodeShape {
  const memory = oneOf(random, [8, 16, 24]);
  const large = upTo(random, memory / 2);
  const small = upTo(random, Math.floor((memory - large) / 2)) * (GIB / 2);
  return {
    cpus: oneOf(random, [4, 8, 12]),
    threadsPerCore,
    memoryMib: memory * GIB,
    hugepages: [
      { sizeMib: 2, pages: small },
      { sizeMib: 1024, pages: large },
    ],
  };
}

/** A VM for each kind of page, with CPUs and memory of this node, as long as there is some of both. */
function occupy(random: Random, host: Host, node: NumaNode): PlacedVm[] {
  const busy = random.next() * MOST_BUSY;
  const cpus = node.cpus.filter(() => random.next() < busy);
  return PAGE_SIZES.flatMap((page, index) => {
    const own = cpus.filter((_, at) => at % PAGE_SIZES.length === index);
    const pool = pagesOf(node, page);
    const memoryMib = upTo(random, Math.floor(pool / GIB) - 1) * GIB;
    if (own.length === 0 || memoryMib <= 0) return [];
    const cell: PlacedCell = { numaNode: node.id, vcpus: own.length, cpus: own, memoryMib };
    const vm = pinnedVm(`on-${node.id}-${page}`, [{ vcpus: own.length, memoryMib }], { hugepageMib: page });
    return [{ vm, placement: { host: host.id, cells: [cell], emulatorCpus: [], ioThreadCpus: [], devices: [] } }];
  });
}

/** MiB that pages of this size have in all; 0: normal pages. */
function pagesOf(node: NumaNode, page: HugepageMib): number {
  if (page !== 0) {
    return node.hugepages.filter(({ sizeMib }) => sizeMib === page).reduce((sum, { pages }) => sum + pages * page, 0);
  }
  return node.memoryMib - node.hugepages.reduce((sum, { sizeMib, pages }) => sum + sizeMib * pages, 0);
}

/**
 * One NUMA node too few: of the host's nodes all but `cells - 1` are full, so that permutations must all be tried before the
 * answer is no.
 */
export function oneCellShort(nodes: number, cells: number): NumaCase {
  const host = hostOf(
    0,
    Array.from({ length: nodes }, () => ({ cpus: 8, threadsPerCore: 1 as const, memoryMib: 16 * GIB, hugepages: [] })),
  );
  // One CPU of the full nodes stays free: a cell that asks for less than all would fit, these do not.
  const placed = host.numaNodes.slice(cells - 1).map((node): PlacedVm => {
    const cpus = node.cpus.slice(1);
    const cell: PlacedCell = { numaNode: node.id, vcpus: cpus.length, cpus, memoryMib: GIB };
    const vm = pinnedVm(`on-${node.id}`, [{ vcpus: cpus.length, memoryMib: GIB }]);
    return {
      vm: { ...vm, id: `on-${node.id}` as VmId },
      placement: { host: host.id, cells: [cell], emulatorCpus: [], ioThreadCpus: [], devices: [] },
    };
  });
  const asked = pinnedVm(
    'asked',
    Array.from({ length: cells }, () => ({ vcpus: 4, memoryMib: 4 * GIB })),
  );
  return { host, placed, asked };
}
