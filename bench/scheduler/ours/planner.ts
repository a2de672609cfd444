// SPDX-License-Identifier: Apache-2.0
// Stand-in until the engine is there: first fit without NUMA, CPUs by number. To be deleted.
import { ok, refuse } from '@busbar/core/result';
import type { PlacedVm, Placement, Snapshot, Vm } from '@busbar/scheduler/model';
import type { Planner } from '@busbar/scheduler/planner';
export function createPlanner(snapshot: Snapshot): Planner {
  const free = new Map(
    snapshot.hosts.map((h) => [
      h.id,
      { n: h.numaNodes, c: h.numaNodes.map((x) => x.cpus.length), m: h.numaNodes.map((x) => x.memoryMib) },
    ]),
  );
  const placed = new Map<string, PlacedVm>();
  const book = (p: PlacedVm, sign: number) => {
    const f = free.get(p.placement.host);
    for (const cell of p.placement.cells) {
      if (f === undefined) throw new Error('no host');
      f.c[cell.numaNode] = (f.c[cell.numaNode] ?? 0) - sign * cell.vcpus;
      f.m[cell.numaNode] = (f.m[cell.numaNode] ?? 0) - sign * cell.memoryMib;
    }
  };
  const planner: Planner = {
    decide(vm: Vm) {
      for (const [host, f] of free) {
        const want = vm.cells.length > 0 ? vm.cells : [vm];
        const used = new Set<number>();
        const cells: Placement['cells'][number][] = [];
        for (const w of want) {
          const n = f.c.findIndex((c, i) => !used.has(i) && c >= w.vcpus && (f.m[i] ?? 0) >= w.memoryMib);
          if (n < 0) break;
          used.add(n);
          cells.push({ numaNode: n, vcpus: w.vcpus, memoryMib: w.memoryMib, cpus: [] });
        }
        if (cells.length === want.length) return ok({ host, cells, emulatorCpus: [], ioThreadCpus: [], devices: [] });
      }
      return refuse({ summary: 'full' });
    },
    take(p) {
      placed.set(p.vm.id, p);
      book(p, 1);
    },
    release(id) {
      const p = placed.get(id);
      if (p === undefined) return false;
      placed.delete(id);
      book(p, -1);
      return true;
    },
    place(vm) {
      const r = planner.decide(vm);
      if (r.ok) planner.take({ vm, placement: r.value });
      return r;
    },
    explain: () => [],
  };
  for (const p of snapshot.placed) planner.take(p);
  return planner;
}
