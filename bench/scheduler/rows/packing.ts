// SPDX-License-Identifier: Apache-2.0
import { moveFor } from '@busbar/scheduler/advice/advice';
import type { Row } from '../../measure.ts';
import { bestFit, firstFit } from '../baselines/fit.ts';
import { type Packing, pack, packingOf } from '../baselines/pool.ts';
import { type Bench, mean, percent } from '../bench.ts';
import { emptyCluster } from '../ours/cluster.ts';
import { hostsOf, plainNode, plainVm } from '../ours/model.ts';
import { HOST } from '../workload/flavour.ts';
import { type Stream, streamOf, WORKLOADS, type WorkloadName } from '../workload/stream.ts';

const SEEDS = [1, 2, 3, 4, 5] as const;
const SIZES = [20, 100, 400] as const;
// hail needs 3 s for a stream on 20 hosts, and minutes on 100.
const HAIL_HOSTS = 20;

/** How many VMs a cluster holds: before the first refusal, and of a stream that goes on after refusals. Means of the seeds. */
export async function packingRows(bench: Bench): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const hosts of SIZES) for (const name of WORKLOADS) rows.push(...(await compare(bench, name, hosts)));
  return [...rows, withMoves()];
}

async function compare(bench: Bench, name: WorkloadName, hosts: number): Promise<readonly Row[]> {
  // One size has but one order.
  const seeds = name === 'uniform' ? SEEDS.slice(0, 1) : SEEDS;
  const streams = seeds.map((seed) => streamOf(name, seed, hosts, bench.trace));
  const ours = streams.map((stream) => packOurs(hosts, stream));
  const rivals = new Map<string, readonly Packing[]>([
    ['first fit', streams.map(({ arrivals }) => pack(firstFit(hosts, HOST), arrivals))],
    ['best fit', streams.map(({ arrivals }) => pack(bestFit(hosts, HOST), arrivals))],
  ]);
  if (hosts === HAIL_HOSTS) {
    const ganeti = await bench.ganeti();
    const packings: Packing[] = [];
    for (const { arrivals } of streams) packings.push(await ganeti.pack(hosts, arrivals));
    rivals.set('hail', packings);
  }
  const bound = mean(streams.map((stream) => stream.bound));
  const row = (what: string, figure: (packing: Packing) => number, text: (packings: readonly Packing[]) => string) => {
    const average = (packings: readonly Packing[]): number => mean(packings.map(figure));
    const [best, packings] = [...rivals].reduce((a, b) => (average(b[1]) > average(a[1]) ? b : a));
    return {
      what: `${what}, ${name}, ${hosts} hosts`,
      ours: text(ours),
      theirs: text(packings),
      ratio: average(ours) / average(packings),
      rounds: seeds.length,
      peer: `the best of ${[...rivals.keys()].join(', ')}: ${best}`,
    };
  };
  const usedOf = ({ vcpus, memoryMib }: Packing): number =>
    Math.max(vcpus / HOST.cpus, memoryMib / HOST.memoryMib) / hosts;
  return [
    {
      ...row(
        'VMs before the first refusal',
        ({ first }) => first,
        (packings) => {
          const average = mean(packings.map(({ first }) => first));
          return `${average.toFixed(1)}, ${percent(average / bound)} of bound`;
        },
      ),
      goal: name === 'skew' && hosts === 100 ? '≥ 1×, ≥ 97.5 %' : '≥ 1×',
    },
    {
      ...row(
        'VMs in all',
        ({ total }) => total,
        (packings) => {
          const used = mean(packings.map(usedOf));
          return `${mean(packings.map(({ total }) => total)).toFixed(1)} with ${percent(used)}`;
        },
      ),
      goal: '≥ 1×',
    },
  ];
}

function packOurs(hosts: number, { arrivals }: Stream): Packing {
  const planner = emptyCluster(hostsOf(hosts, [plainNode(HOST)]));
  return packingOf(
    arrivals,
    arrivals.map((arrival, index) => planner.place(plainVm(`vm${index}`, arrival)).ok),
  );
}

/** One VM may be moved for each that would be refused; the first that no move helps ends it. */
function withMoves(): Row {
  const hosts = 100;
  const streams = SEEDS.map((seed) => streamOf('skew', seed, hosts, []));
  const results = streams.map(({ arrivals }) => {
    const planner = emptyCluster(hostsOf(hosts, [plainNode(HOST)]));
    let [placed, moves] = [0, 0];
    for (const arrival of arrivals) {
      const vm = plainVm(`vm${placed}`, arrival);
      if (!planner.place(vm).ok) {
        const move = moveFor(planner, vm);
        if (move === null) break;
        planner.take({ vm: move.vm, placement: move.to });
        planner.take({ vm, placement: move.placement });
        moves++;
      }
      placed++;
    }
    return { placed, moves };
  });
  const placed = mean(results.map((result) => result.placed));
  const share = placed / mean(streams.map(({ bound }) => bound));
  const moves = mean(results.map((result) => result.moves));
  return {
    what: `VMs before the first refusal, skew, ${hosts} hosts, one move for each refusal`,
    ours: `${placed.toFixed(1)}, ${percent(share)} of bound, ${moves.toFixed(1)} moves`,
    theirs: '–',
    ratio: null,
    goal: '≥ 99 %',
    rounds: SEEDS.length,
    peer: '–',
  };
}
