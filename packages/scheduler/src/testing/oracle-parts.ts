// SPDX-License-Identifier: Apache-2.0
import type { GuestCell, NumaNode, PlacedCell, PlacedDevice, Vm } from '../model.ts';

export const MEMORY_STEP_MIB = 1024;

/** Each required request from one of the VM's nodes, the others from what is left. */
export function devicesServe(
  vm: Vm,
  cells: readonly PlacedCell[],
  devices: readonly PlacedDevice[],
  nodes: readonly NumaNode['id'][],
): boolean {
  const own = cells.map(({ numaNode }) => numaNode);
  const nodeOf = ({ numaNode }: PlacedDevice) => (numaNode === null && nodes.length === 1 ? nodes[0] : numaNode);
  const serve = (requests: readonly Vm['devices'][number][], left: readonly PlacedDevice[]): boolean => {
    const [request, ...others] = requests;
    if (request === undefined) return left.length === 0;
    const pools =
      request.numa === 'required' ? own.map((node) => left.filter((device) => nodeOf(device) === node)) : [left];
    return pools.some((pool) => {
      const fit = pool.filter((device) => device.class === request.class).slice(0, request.count);
      return (
        fit.length === request.count &&
        serve(
          others,
          left.filter((device) => !fit.includes(device)),
        )
      );
    });
  };
  return serve(
    vm.devices.toSorted((a, b) => Number(b.numa === 'required') - Number(a.numa === 'required')),
    devices,
  );
}

export const unitMib = (vm: Vm) => (vm.hugepageMib === 1024 ? 1024 : MEMORY_STEP_MIB);
export const unitsOf = (vm: Vm) => Math.ceil(vm.memoryMib / unitMib(vm));

/** As equal as whole vCPUs and pages (or MiB) allow, the larger first. */
export function equalParts(vm: Vm, count: number): readonly GuestCell[] {
  const unit = vm.hugepageMib === 0 ? 1 : vm.hugepageMib;
  const cells = Array.from({ length: count }, () => ({ vcpus: 0, memoryMib: 0 }));
  for (let i = 0; i < vm.vcpus; i++) (cells[i % count] as { vcpus: number }).vcpus++;
  for (let i = 0; i < Math.ceil(vm.memoryMib / unit); i++)
    (cells[i % count] as { memoryMib: number }).memoryMib += unit;
  return cells;
}
