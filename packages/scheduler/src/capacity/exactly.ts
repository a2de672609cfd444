// SPDX-License-Identifier: Apache-2.0
import type { HostId } from '@busbar/core/ids';
import type { Seating } from '../fit/seating.ts';
import type { Placement, Vm } from '../model.ts';
import type { Shape } from '../shape/shape.ts';
import { GENERAL, ISOLATED } from './dimensions.ts';
import type { Ledger } from './ledger.ts';

/** From NUMA nodes to the CPUs and addresses that are free there. Takes nothing. */
export function exactly(
  ledger: Ledger,
  shape: Shape,
  host: number,
  { seats, devices }: Seating,
  spareSingles = false,
): Placement {
  const { needs } = shape;
  const { nodeIds, hosts, hasGeneral } = ledger.topology;
  const pool = needs.cpuPolicy === 'realtime' ? ISOLATED : GENERAL;
  const cells = seats.map(({ node, vcpus, memoryMib }) => ({
    numaNode: nodeIds[node] ?? 0,
    vcpus,
    cpus: needs.cpuPolicy === 'shared' ? [] : ledger.pick(node, pool, vcpus, needs.smt, [], spareSingles),
    memoryMib,
  }));
  const first = seats[0]?.node ?? 0;
  const extraPool = hasGeneral[first] === 1 ? GENERAL : ISOLATED;
  const blocked = extraPool === pool ? ledger.blockedBy(first, cells[0]?.cpus ?? [], needs.smt) : [];
  const extra =
    shape.extraCpus === 0 ? [] : ledger.pick(first, extraPool, shape.extraCpus, 'prefer', blocked, spareSingles);
  return {
    host: hosts[host]?.id as HostId,
    cells,
    emulatorCpus: extra.slice(0, 1),
    ioThreadCpus: extra.slice(1),
    devices: ledger.pickDevices(host, devices),
  };
}

/**
 * Where cores of one and of two threads are mixed, which of them is taken matters to who else can be served: the first choice
 * that leaves everything as `isKept` wants it, else the usual one.
 */
export function exactlyKeeping(
  ledger: Ledger,
  vm: Vm,
  shape: Shape,
  host: number,
  seating: Seating,
  isKept: () => boolean,
): Placement {
  const usual = exactly(ledger, shape, host, seating);
  if (shape.needs.cpuPolicy === 'shared' || ledger.topology.isHybrid[host] !== 1) return usual;
  for (const placement of [usual, exactly(ledger, shape, host, seating, true)]) {
    ledger.take(vm, placement);
    const kept = isKept();
    ledger.release(vm, placement);
    if (kept) return placement;
  }
  return usual;
}
