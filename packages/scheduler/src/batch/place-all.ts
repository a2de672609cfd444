// SPDX-License-Identifier: Apache-2.0
import type { Placement, Refusal, Vm } from '../model.ts';
import type { Planner } from '../planner.ts';

/** all: every one of them or none. best-effort: as many as find room, those of the highest priority first. */
export type BatchMode = 'all' | 'best-effort';

export interface BatchResult {
  /** In the order in which they were asked for. Empty when "all" could not be had. */
  readonly placed: readonly { readonly vm: Vm; readonly placement: Placement }[];
  /** Those for which there was no room. */
  readonly refused: readonly { readonly vm: Vm; readonly refusal: Refusal }[];
}

type Order = (a: Vm, b: Vm) => number;

const byPriority: Order = (a, b) => b.priority - a.priority;
const byId: Order = (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
/** Harder to place first: those with CPUs of their own, pages or devices fit fewest nodes. */
const byHardness: Order = (a, b) => hardness(b) - hardness(a);
const byMemory: Order = (a, b) => b.memoryMib - a.memoryMib;
const byVcpus: Order = (a, b) => b.vcpus - a.vcpus;

function hardness(vm: Vm): number {
  const cpus = { realtime: 4, dedicated: 2, shared: 0 }[vm.cpuPolicy];
  const pinned = vm.pinnedHost === '' ? 0 : 8;
  return pinned + cpus + vm.devices.length + (vm.hugepageMib === 0 ? 0 : 1) + (vm.smt === 'isolate' ? 1 : 0);
}

/**
 * Tried one after the other for "all"; the first is the one for "best-effort". Decreasing size is what packs best when the list
 * is known; which size is scarce differs from cluster to cluster.
 */
const ORDERS: readonly Order[] = [
  (a, b) => byPriority(a, b) || byHardness(a, b) || byMemory(a, b) || byVcpus(a, b) || byId(a, b),
  (a, b) => byHardness(a, b) || byVcpus(a, b) || byMemory(a, b) || byId(a, b),
  (a, b) => byHardness(a, b) || byMemory(a, b) || byVcpus(a, b) || byId(a, b),
  (a, b) => relative(b) - relative(a) || byId(a, b),
];

/** vCPUs and memory together, at 4 GiB a vCPU: what most hosts are bought with. */
const relative = (vm: Vm) => vm.vcpus + vm.memoryMib / 4096;

/** Places a list of VMs together and takes their resources. */
export function placeAll(planner: Planner, vms: readonly Vm[], mode: BatchMode): BatchResult {
  let first: BatchResult | null = null;
  for (const order of mode === 'all' ? ORDERS : ORDERS.slice(0, 1)) {
    const result = inOrder(planner, vms.toSorted(order));
    if (mode === 'best-effort' || result.refused.length === 0) return asAsked(vms, result);
    for (const { vm } of result.placed) planner.release(vm.id);
    first ??= result;
  }
  return { placed: [], refused: first?.refused ?? [] };
}

function inOrder(planner: Planner, vms: readonly Vm[]): BatchResult {
  const placed: BatchResult['placed'][number][] = [];
  const refused: BatchResult['refused'][number][] = [];
  for (const vm of vms) {
    const decided = planner.place(vm);
    if (decided.ok) placed.push({ vm, placement: decided.value });
    else refused.push({ vm, refusal: decided.error });
  }
  return { placed, refused };
}

function asAsked(vms: readonly Vm[], { placed, refused }: BatchResult): BatchResult {
  const position = new Map(vms.map(({ id }, index) => [id, index]));
  const at = ({ vm }: { readonly vm: Vm }) => position.get(vm.id) ?? 0;
  return {
    placed: placed.toSorted((a, b) => at(a) - at(b)),
    refused: refused.toSorted((a, b) => at(a) - at(b)),
  };
}
