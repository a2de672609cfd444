// SPDX-License-Identifier: Apache-2.0
import type { Room } from '../fit/room.ts';
import { seatingsOn } from '../fit/seat.ts';
import type { Seating } from '../fit/seating.ts';
import type { PlacementPolicy } from '../model.ts';
import type { Groups } from '../rule/groups.ts';
import type { Failover, Survival } from './failover.ts';
import type { Member } from './refuge.ts';
import type { Effort } from './search.ts';

/** Whether a host may take a VM, all losses considered; and then, where on the host. */
export interface Admission extends Survival {
  readonly seating: Seating | null;
}

/** Asks of a VM on a host whether all losses could be survived, with whatever plans. */
export class Admissions {
  readonly #failover: Failover;
  readonly #free: Room;
  readonly #groups: Groups;
  readonly #policy: PlacementPolicy;

  constructor(failover: Failover, free: Room, groups: Groups, policy: PlacementPolicy) {
    this.#failover = failover;
    this.#free = free;
    this.#groups = groups;
    this.#policy = policy;
  }

  withAnyPlans(member: Member, effort: Effort): Admission {
    const { vm, shape, host } = member;
    let why: Survival = { ok: false, loss: '', proven: true, homeless: [] };
    // For the rules of others it is there already.
    this.#groups.add(vm, host);
    try {
      for (const { seating, held } of seatingsOn(this.#free, shape, host, this.#policy, true)) {
        if (--effort.left < 0) return { ...why, ok: false, loss: why.loss || 'a host', proven: false, seating: null };
        const amounts = this.#free.amounts.slice();
        for (const { node, demand } of held) {
          demand.dimensions.forEach((dimension, i) => {
            const at = node * this.#free.topology.stride + dimension;
            amounts[at] = (amounts[at] ?? 0) - (demand.amounts[i] ?? 0);
          });
        }
        const nodes = [...new Set(held.map(({ node }) => node))];
        why = this.#failover.couldSurvive(amounts, nodes, member, effort);
        if (why.ok) return { ...why, seating };
      }
      return { ...why, seating: null };
    } finally {
      this.#groups.remove(vm);
    }
  }
}
