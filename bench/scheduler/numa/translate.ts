// SPDX-License-Identifier: Apache-2.0
import type { Host, PlacedVm, Vm } from '@busbar/scheduler/model';
import { type NovaGuest, type NovaHost, SMALL_PAGES } from '../peers/nova/nova.ts';

const KIB_PER_MIB = 1024;
const NORMAL_PAGE_KIB = 4;

/** The host and who is on it, as Nova's compute node would report it. */
export function novaHost(host: Host, placed: readonly PlacedVm[]): NovaHost {
  return host.numaNodes.map((node) => {
    const siblings = node.smtSiblings.flat();
    const cells = placed.flatMap(({ vm, placement }) =>
      placement.cells
        .filter(({ numaNode }) => numaNode === node.id)
        .map(({ cpus, memoryMib }) => ({ cpus, memoryMib, page: vm.hugepageMib })),
    );
    const used = (page: number): number =>
      cells.filter((cell) => cell.page === page).reduce((sum, { memoryMib }) => sum + memoryMib, 0);
    const pooled = node.hugepages.reduce((sum, { sizeMib, pages }) => sum + sizeMib * pages, 0);
    const normalPages = (mib: number): number => (mib * KIB_PER_MIB) / NORMAL_PAGE_KIB;
    return {
      cpus: node.cpus,
      siblings: [...node.smtSiblings, ...node.cpus.filter((cpu) => !siblings.includes(cpu)).map((cpu) => [cpu])],
      memory: node.memoryMib,
      usedCpus: cells.flatMap(({ cpus }) => cpus),
      usedMemory: cells.reduce((sum, { memoryMib }) => sum + memoryMib, 0),
      pages: [
        [NORMAL_PAGE_KIB, normalPages(node.memoryMib - pooled), normalPages(used(0))],
        ...node.hugepages.map(({ sizeMib, pages }) => [sizeMib * KIB_PER_MIB, pages, used(sizeMib) / sizeMib] as const),
      ],
    };
  });
}

/**
 * A dedicated VM with explicit cells as an instance. Normal pages are asked for by name: without a page size, Nova counts
 * the memory of hugepage pools as free for normal pages, and would say yes to what the kernel kills.
 */
export function novaGuest(vm: Vm): NovaGuest {
  return {
    threads: vm.smt,
    page: vm.hugepageMib === 0 ? SMALL_PAGES : vm.hugepageMib * KIB_PER_MIB,
    cells: vm.cells.map(({ vcpus, memoryMib }) => [vcpus, memoryMib]),
  };
}
