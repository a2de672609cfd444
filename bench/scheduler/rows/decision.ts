// SPDX-License-Identifier: Apache-2.0
import type { PlacementPolicy, Vm } from '@busbar/scheduler/model';
import type { Planner } from '@busbar/scheduler/planner';
import { median, type Row } from '../../measure.ts';
import { type Bench, duration, spread } from '../bench.ts';
import { emptyCluster, indexOfHosts, timeDecisions } from '../ours/cluster.ts';
import { hostsOf, plainNode, plainVm } from '../ours/model.ts';
import type { PlacedOn } from '../peers/ganeti/text.ts';
import { type Arrival, HOST } from '../workload/flavour.ts';
import { streamOf } from '../workload/stream.ts';

// p99 of 2,000 is the twentieth worst: no single pause of the machine decides it.
const DECISIONS = 2_000;

interface HalfFull {
  readonly planner: Planner;
  /** What is on the hosts, for the peer. */
  readonly placed: readonly PlacedOn[];
  /** What comes next. */
  readonly next: readonly Vm[];
  readonly nextArrival: Arrival;
}

/** The first half of what the volume bound of skew allows, placed by our planner; the peer gets the same state. */
function halfFull(hosts: number, policy: Partial<PlacementPolicy>, decisions: number): HalfFull {
  const { arrivals, bound } = streamOf('skew', 1, hosts, []);
  const vms = arrivals.map((arrival, index) => plainVm(`vm${index}`, arrival));
  const half = Math.floor(bound / 2);
  const all = hostsOf(hosts, [plainNode(HOST)]);
  const indexes = indexOfHosts(all);
  const planner = emptyCluster(all, policy);
  const placed = arrivals.slice(0, half).map((arrival, index) => {
    const answer = planner.place(vms[index] as Vm);
    if (!answer.ok) throw new Error(`no room on ${hosts} half-full hosts: ${answer.error.summary}`);
    return { ...arrival, host: indexes.get(answer.value.host) ?? -1 };
  });
  return { planner, placed, next: vms.slice(half, half + decisions), nextArrival: arrivals[half] as Arrival };
}

/** One decision in a cluster that is half full and warm, without N-1. */
export async function decisionRows(bench: Bench): Promise<readonly Row[]> {
  const rows: Row[] = [];
  const ganeti = await bench.ganeti();
  for (const { hosts, rounds } of [
    { hosts: 20, rounds: 5 },
    { hosts: 100, rounds: 3 },
  ]) {
    // No more than a tenth of the cluster: it is to stay half full.
    const { planner, placed, next, nextArrival } = halfFull(hosts, {}, 6 * hosts);
    const ours = timeDecisions(planner, next);
    const theirs = await repeat(rounds, async () => (await ganeti.decide(hosts, placed, nextArrival, false)).ms);
    rows.push({
      what: `one decision, ${hosts} hosts half full`,
      ours: spread(ours),
      theirs: duration(median(theirs)),
      ratio: median(theirs) / median(ours),
      goal: '–',
      rounds,
      peer: 'hail, a process, its parsing included',
    });
  }
  for (const { hosts, goal } of [
    { hosts: 400, goal: 'p99 ≤ 100 µs' },
    { hosts: 5_000, goal: 'p99 ≤ 1 ms' },
  ]) {
    const { planner, next } = halfFull(hosts, {}, DECISIONS);
    const ours = timeDecisions(planner, next);
    rows.push({
      what: `one warm decision, ${hosts.toLocaleString('en')} hosts half full`,
      ours: spread(ours),
      theirs: '–',
      ratio: null,
      goal,
      rounds: ours.length,
      peer: '–',
    });
  }
  return rows;
}

/** One decision after which any one host may still die: hail's check (for memory) and ours (for all that is needed). */
export async function surviveRows(bench: Bench): Promise<readonly Row[]> {
  const rows: Row[] = [];
  const ganeti = await bench.ganeti();
  for (const { hosts, rounds, goal } of [
    { hosts: 20, rounds: 3, goal: '≥ 100×' },
    // 9 s each.
    { hosts: 100, rounds: 1, goal: '≥ 5,000×, p50 ≤ 50 µs' },
    // hail would take minutes.
    { hosts: 400, rounds: 0, goal: 'p50 ≤ 250 µs' },
  ]) {
    const { planner, placed, next, nextArrival } = halfFull(hosts, { survive: 'any-one-host' }, 4 * hosts);
    const ours = timeDecisions(planner, next);
    const theirs = await repeat(rounds, async () => (await ganeti.decide(hosts, placed, nextArrival, true)).ms);
    rows.push({
      what: `one N-1 checked decision, ${hosts} hosts half full`,
      ours: spread(ours),
      theirs: rounds === 0 ? '–' : duration(median(theirs)),
      ratio: rounds === 0 ? null : median(theirs) / median(ours),
      goal,
      rounds: rounds === 0 ? ours.length : rounds,
      peer: rounds === 0 ? '–' : 'hail with its check',
    });
  }
  return rows;
}

async function repeat(rounds: number, work: () => Promise<number>): Promise<number[]> {
  const results: number[] = [];
  for (let round = 0; round < rounds; round++) results.push(await work());
  return results;
}
