// SPDX-License-Identifier: Apache-2.0
import type { HostId } from '@busbar/core/ids';
import { exactly } from '../capacity/exactly.ts';
import type { Ledger } from '../capacity/ledger.ts';
import type { Placement, Vm } from '../model.ts';
import type { Failover } from './failover.ts';

/** What a loss would do to the VMs of its hosts. */
export interface Drill {
  /** "host1", or a failure domain with its hosts. */
  readonly loss: string;
  readonly hosts: readonly HostId[];
  /** Where each HA VM would go, those of the highest priority first. */
  readonly moves: readonly { readonly vm: Vm; readonly placement: Placement }[];
  /** HA VMs that have no place. */
  readonly homeless: readonly Vm[];
}

/** Plans down to the CPU. `ledger`: everything that is placed; it is afterwards as before. */
export function drillsOf(failover: Failover, ledger: Ledger): readonly Drill[] {
  return failover.plans().map(({ loss, refuges, homeless }) => {
    const moves = refuges.map(({ member: { vm, shape }, host, seating }) => {
      const placement = exactly(ledger, shape, host, seating);
      ledger.take(vm, placement);
      return { vm, placement };
    });
    for (const { vm, placement } of moves) ledger.release(vm, placement);
    const hosts = loss.hosts.map((host) => ledger.topology.hosts[host]?.id as HostId);
    return { loss: loss.name, hosts, moves, homeless };
  });
}
