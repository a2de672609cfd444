// SPDX-License-Identifier: Apache-2.0
import type { HostId } from '@busbar/core/ids';
import type { Placement as Presented } from '@busbar/proto/gen/busbar/v1/vm';
import type { Host, PlacedCell, Placement, Vm } from '@busbar/scheduler/model';

/** What was decided for a VM, between the planner's form and the API's. Pure. */

const MIB = 1024n ** 2n;
const UNKNOWN_NODE = -1;

export function presentPlacement(placement: Placement): Presented {
  return {
    host: placement.host,
    cells: placement.cells.map(({ numaNode, vcpus, cpus, memoryMib }) => ({
      numaNode,
      vcpus,
      cpus: [...cpus],
      memoryBytes: BigInt(memoryMib) * MIB,
    })),
    emulatorCpus: [...placement.emulatorCpus],
    ioThreadCpus: [...placement.ioThreadCpus],
    devices: placement.devices.map((device) => ({
      class: device.class,
      address: device.address,
      numaNode: device.numaNode ?? UNKNOWN_NODE,
    })),
  };
}

/** What a VM on a host holds: as decided, or for an epoch that was begun by a version that did not say, as it may be. */
export function restorePlacement(stored: Presented | undefined, vm: Vm, host: Host): Placement {
  if (stored === undefined) return assumedPlacement(vm, host);
  return {
    host: stored.host as HostId,
    cells: stored.cells.map(({ numaNode, vcpus, cpus, memoryBytes }) => ({
      numaNode,
      vcpus,
      cpus,
      memoryMib: Number((memoryBytes + MIB - 1n) / MIB),
    })),
    emulatorCpus: stored.emulatorCpus,
    ioThreadCpus: stored.ioThreadCpus,
    devices: stored.devices.map((device) => ({
      class: device.class,
      address: device.address,
      numaNode: device.numaNode === UNKNOWN_NODE ? null : device.numaNode,
    })),
  };
}

/**
 * Nothing of that VM is bound to anything: it floats over the whole host, and its memory is wherever the kernel put it. It is
 * counted on the host's NUMA nodes by their share of the memory, so that none of them looks emptier than it is.
 */
function assumedPlacement(vm: Vm, host: Host): Placement {
  const all = host.numaNodes.reduce((sum, node) => sum + node.memoryMib, 0);
  let vcpus = vm.vcpus;
  let memoryMib = vm.memoryMib;
  const cells = host.numaNodes.flatMap(({ id, memoryMib: has }, index): PlacedCell[] => {
    const isLast = index === host.numaNodes.length - 1;
    const share = all === 0 ? 0 : has / all;
    const cell = {
      numaNode: id,
      cpus: [],
      vcpus: isLast ? vcpus : Math.min(vcpus, Math.round(vm.vcpus * share)),
      memoryMib: isLast ? memoryMib : Math.min(memoryMib, Math.round(vm.memoryMib * share)),
    };
    vcpus -= cell.vcpus;
    memoryMib -= cell.memoryMib;
    return cell.vcpus === 0 && cell.memoryMib === 0 ? [] : [cell];
  });
  return { host: host.id, cells, emulatorCpus: [], ioThreadCpus: [], devices: [] };
}
