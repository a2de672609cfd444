// SPDX-License-Identifier: Apache-2.0
import type { Vm } from '@busbar/scheduler/model';
import { median, type Row } from '../../measure.ts';
import { fragmentationGradient } from '../baselines/fragmentation.ts';
import { type Bench, perSecond } from '../bench.ts';
import { emptyCluster, placeToRefusal } from '../ours/cluster.ts';
import { hostsOf, type NodeShape, pinnedVm, plainNode, plainVm } from '../ours/model.ts';
import { type Arrival, HOST } from '../workload/flavour.ts';
import { type Stream, streamOf, type WorkloadName } from '../workload/stream.ts';

const ROUNDS = 3;
// Ours in each of them: 20 hosts are full in a few milliseconds, less than a pause of the machine.
const RUNS = 5;
/**
 * What a peer can be asked for without minutes of waiting: hspace needs 0.7 s to fill 20 hosts, and some 70 s and 2.6 h for
 * 100 and 400. Its first placements are its fastest, so that a limit is in its favour.
 */
const SIZES = [
  { hosts: 20, limit: null, goal: '≥ 50×' },
  { hosts: 100, limit: 25, goal: '≥ 1,000×' },
  { hosts: 400, limit: 2, goal: '≥ 20,000×' },
] as const;
const NAMES: readonly WorkloadName[] = ['ot', 'skew', 'trace'];
// hspace places VMs of one size only: the mean of skew, rounded.
const HSPACE_SIZE = { vcpus: 4, memoryMib: 16 * 1024 };
// hail takes a list or refuses it as a whole; it has never refused one as short as this.
const HAIL_SHARE = 0.85;

/** Placements per second to the first refusal. */
export async function rateRows(bench: Bench): Promise<readonly Row[]> {
  const ganeti = await bench.ganeti();
  const rows: Row[] = [];
  for (const { hosts, limit, goal } of SIZES) {
    for (const name of NAMES) {
      const stream = streamOf(name, 1, hosts, bench.trace);
      const what = `placements/s, ${name}, ${hosts} hosts`;
      const hspace = await inTurn(hosts, stream, async () => ganeti.fill(hosts, HSPACE_SIZE, limit));
      rows.push({ what, peer: `hspace, ${limit === null ? 'full' : `its first ${2 * limit}`}`, goal, ...hspace });
      if (hosts !== SIZES[0].hosts) continue;
      const list = stream.arrivals.slice(0, Math.floor(stream.bound * HAIL_SHARE));
      const hail = await inTurn(hosts, stream, async () => {
        const placed = await ganeti.placeAll(hosts, list);
        if (placed === null) throw new Error(`hail refused ${list.length} VMs of ${name}, ${stream.bound} would fit`);
        return placed;
      });
      rows.push({ what, peer: 'hail, same stream in one process', goal, ...hail });
    }
    const stream = streamOf('skew', 1, hosts, bench.trace);
    const limitRow = await inTurn(hosts, stream, async () => loop(hosts, stream));
    rows.push({
      what: `placements/s, skew, ${hosts} hosts`,
      peer: 'the limit: a loop over typed arrays, CPUs and memory only',
      goal: '–',
      ...limitRow,
    });
  }
  for (const name of ['skew', 'trace'] as const) rows.push(constrained(name, bench.trace));
  return rows;
}

interface Placed {
  readonly placements: number;
  readonly ms: number;
}

type Figures = Pick<Row, 'ours' | 'theirs' | 'ratio' | 'rounds'>;

async function inTurn(hosts: number, stream: Stream, peer: () => Promise<Placed>): Promise<Figures> {
  const vms = stream.arrivals.map((arrival, index) => plainVm(`vm${index}`, arrival));
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round <= ROUNDS; round++) {
    const runs = Array.from({ length: RUNS }, () => {
      const { placed, ms } = placeToRefusal(emptyCluster(hostsOf(hosts, [plainNode(HOST)])), vms);
      return (1000 * placed) / ms;
    });
    // The first round warms the compiler; a peer that is started anew each time has nothing to warm.
    if (round === 0) continue;
    const asked = await peer();
    ours.push(median(runs));
    theirs.push((1000 * asked.placements) / asked.ms);
  }
  return {
    ours: perSecond(median(ours)),
    theirs: perSecond(median(theirs)),
    ratio: median(ours.map((rate, index) => rate / (theirs[index] ?? Number.NaN))),
    rounds: ROUNDS,
  };
}

function loop(hosts: number, { arrivals }: Stream): Placed {
  const place = fragmentationGradient(hosts, HOST, arrivals);
  const began = performance.now();
  let placements = 0;
  while (placements < arrivals.length && place(arrivals[placements] as Arrival) >= 0) placements++;
  return { placements, ms: performance.now() - began };
}

const NODE: NodeShape = {
  cpus: HOST.cpus / 2,
  threadsPerCore: 2,
  memoryMib: HOST.memoryMib / 2,
  // All of it: these VMs want nothing else.
  hugepages: [{ sizeMib: 2, pages: HOST.memoryMib / 2 / 2 }],
};
// Replicas of one service that must not share a host; the trace's deployments go up to 353 VMs.
const REPLICAS = 3;

/** Everything on: a CPU for each vCPU, one NUMA node, 2 MiB pages, anti-affinity in deployments, any one host may die. */
function constrained(name: WorkloadName, trace: readonly Arrival[]): Row {
  const hosts = 400;
  const vms = apart(streamOf(name, 1, hosts, trace).arrivals);
  const rates: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const planner = emptyCluster(hostsOf(hosts, [NODE, NODE]), { survive: 'any-one-host' });
    const { placed, ms } = placeToRefusal(planner, vms);
    if (round > 0) rates.push((1000 * placed) / ms);
  }
  return {
    what: `placements/s, ${name}, ${hosts} hosts, NUMA, pages, anti-affinity and N-1`,
    ours: perSecond(median(rates)),
    theirs: '–',
    ratio: null,
    goal: '≥ 55,000/s',
    rounds: ROUNDS,
    peer: '–',
  };
}

function apart(arrivals: readonly Arrival[]): Vm[] {
  let [batch, member] = [-1, 0];
  return arrivals.map((arrival, index) => {
    [batch, member] = arrival.batch === batch ? [batch, member + 1] : [arrival.batch, 0];
    const group = `${batch}-${Math.floor(member / REPLICAS)}`;
    return pinnedVm(`vm${index}`, [arrival], {
      cells: [],
      guestNuma: 'automatic',
      oneNodeRequired: true,
      hugepageMib: 2,
      rules: [{ group, kind: 'apart', soft: false }],
    });
  });
}
