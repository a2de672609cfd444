// SPDX-License-Identifier: Apache-2.0
import type { HostId } from '@busbar/core/ids';
import type { Seating } from '../fit/seating.ts';
import type { Placement } from '../model.ts';
import type { Shape } from '../shape/shape.ts';
import { GENERAL, ISOLATED } from './dimensions.ts';
import type { Ledger } from './ledger.ts';

/** From NUMA nodes to the CPUs and addresses that are free there. Takes nothing. */
export function exactly(ledger: Ledger, shape: Shape, host: number, { seats, devices }: Seating): Placement {
  const { needs } = shape;
  const { nodeIds, hosts, hasGeneral } = ledger.topology;
  const pool = needs.cpuPolicy === 'realtime' ? ISOLATED : GENERAL;
  const cells = seats.map(({ node, vcpus, memoryMib }) => ({
    numaNode: nodeIds[node] ?? 0,
    vcpus,
    cpus: needs.cpuPolicy === 'shared' ? [] : ledger.pick(node, pool, vcpus, needs.smt),
    memoryMib,
  }));
  const first = seats[0]?.node ?? 0;
  const extraPool = hasGeneral[first] === 1 ? GENERAL : ISOLATED;
  const blocked = extraPool === pool ? ledger.blockedBy(first, cells[0]?.cpus ?? [], needs.smt) : [];
  const extra = shape.extraCpus === 0 ? [] : ledger.pick(first, extraPool, shape.extraCpus, 'prefer', blocked);
  return {
    host: hosts[host]?.id as HostId,
    cells,
    emulatorCpus: extra.slice(0, 1),
    ioThreadCpus: extra.slice(1),
    devices: ledger.pickDevices(host, devices),
  };
}
