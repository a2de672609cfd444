// SPDX-License-Identifier: Apache-2.0
import { placeAll } from '@busbar/scheduler/batch/place-all';
import type { PlacedVm, Snapshot, Vm } from '@busbar/scheduler/model';
import { createPlanner } from '@busbar/scheduler/planner';
import type { Row } from '../../measure.ts';
import { spread } from '../bench.ts';
import { emptyCluster } from '../ours/cluster.ts';
import { BARE_POLICY, hostsOf, plainNode, plainVm } from '../ours/model.ts';
import { HOST } from '../workload/flavour.ts';
import { streamOf } from '../workload/stream.ts';

const HOSTS = 400;
const DEAD_VMS = 50;
const ROUNDS = 20;
// 50 of them fill most of a host.
const SMALL = { vcpus: 1, memoryMib: 4 * 1024 };
const MIDDLE = { vcpus: 2, memoryMib: 8 * 1024 };

/** Where the VMs of a dead host go, all of them, exactly, while the others are half full. */
export async function failoverRows(): Promise<readonly Row[]> {
  const { snapshot, homeless } = afterDeath();
  const [planned, cold]: [number[], number[]] = [[], []];
  for (let round = 0; round <= ROUNDS; round++) {
    const began = performance.now();
    const planner = createPlanner(snapshot);
    const made = performance.now();
    const { placed } = placeAll(planner, homeless, 'best-effort');
    const ended = performance.now();
    if (placed.length !== DEAD_VMS) throw new Error(`${placed.length} of ${DEAD_VMS} VMs found a place`);
    if (round === 0) continue;
    planned.push(ended - made);
    cold.push(ended - began);
  }
  const row = { theirs: '–', ratio: null, rounds: ROUNDS, peer: '–' };
  return [
    {
      ...row,
      what: `failover of ${DEAD_VMS} VMs of a dead host, ${HOSTS} hosts`,
      ours: spread(planned),
      goal: '≤ 5 ms',
    },
    { ...row, what: 'the same, with making the planner from a snapshot', ours: spread(cold), goal: '–' },
  ];
}

function afterDeath(): { readonly snapshot: Snapshot; readonly homeless: readonly Vm[] } {
  const [, ...alive] = hostsOf(HOSTS, [plainNode(HOST)]);
  const { arrivals, bound } = streamOf('skew', 1, HOSTS, []);
  const planner = emptyCluster(alive);
  const placed = arrivals.slice(0, Math.floor(bound / 2)).map((arrival, index): PlacedVm => {
    const vm = plainVm(`vm${index}`, arrival);
    const answer = planner.place(vm);
    if (!answer.ok) throw new Error(`no room on ${HOSTS} half-full hosts: ${answer.error.summary}`);
    return { vm, placement: answer.value };
  });
  const homeless = Array.from({ length: DEAD_VMS }, (_, index) =>
    plainVm(`dead${index}`, index % 4 === 0 ? MIDDLE : SMALL),
  );
  return { snapshot: { hosts: alive, placed, policy: BARE_POLICY }, homeless };
}
