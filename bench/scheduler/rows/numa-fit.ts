// SPDX-License-Identifier: Apache-2.0
import { seededRandom } from '@busbar/core/random';
import type { GuestCell, PlacedVm, Snapshot, Vm } from '@busbar/scheduler/model';
import { createPlanner } from '@busbar/scheduler/planner';
import { median, type Row } from '../../measure.ts';
import { type Bench, duration, percent } from '../bench.ts';
import { type NumaCase, oneCellShort, randomCase } from '../numa/cases.ts';
import { novaGuest, novaHost } from '../numa/translate.ts';
import { BARE_POLICY, hostsOf, type NodeShape, pinnedVm } from '../ours/model.ts';

const GIB = 1024;
// What a scheduler of a large site looks through for one VM.
const HOSTS = 400;
const PASSES = 20;
const NODE: NodeShape = {
  cpus: 32,
  threadsPerCore: 2,
  memoryMib: 128 * GIB,
  hugepages: [{ sizeMib: 1024, pages: 120 }],
};
// 16×6 took Nova 10 s, 16×8 has no end that anybody waited for.
const ADVERSARY_LIMIT_MS = 20_000;
const ADVERSARY_ROUNDS = 200;

const cellsOf = (count: number, vcpus: number): GuestCell[] =>
  Array.from({ length: count }, () => ({ vcpus: vcpus / count, memoryMib: (4 * vcpus * GIB) / count }));

const GUESTS = [
  { name: '4 vCPUs', cells: cellsOf(1, 4) },
  { name: '16 vCPUs', cells: cellsOf(1, 16) },
  { name: '16 vCPUs in 2 cells', cells: cellsOf(2, 16) },
];

function snapshotOf({ host, placed }: Pick<NumaCase, 'host' | 'placed'>): Snapshot {
  return { hosts: [host], placed, policy: BARE_POLICY };
}

/** Hosts of 2 × 32 threads, with 8 of them and 32 GiB taken on each node. */
function busyHosts(count: number): Pick<Snapshot, 'hosts' | 'placed'> {
  const hosts = hostsOf(count, [NODE, NODE]);
  const placed = hosts.map(({ id, numaNodes }): PlacedVm => {
    const vm = pinnedVm(`on-${id}`, cellsOf(2, 16), { hugepageMib: 1024 });
    const cells = numaNodes.map((node) => ({
      numaNode: node.id,
      vcpus: 8,
      cpus: node.cpus.slice(0, 8),
      memoryMib: 32 * GIB,
    }));
    return { vm, placement: { host: id, cells, emulatorCpus: [], ioThreadCpus: [], devices: [] } };
  });
  return { hosts, placed };
}

/** Milliseconds of our decisions. Between two of them a VM goes and comes back: no answer can be the one kept from before. */
function timeOurs(state: Pick<NumaCase, 'host' | 'placed'>, asked: Vm, rounds: number): number[] {
  const planner = createPlanner(snapshotOf(state));
  return Array.from({ length: rounds }, (_, round) => {
    const moved = state.placed[round % state.placed.length];
    if (moved !== undefined) {
      planner.release(moved.vm.id);
      planner.take(moved);
    }
    const began = performance.now();
    planner.decide(asked);
    return performance.now() - began;
  });
}

/** Milliseconds for each host of a decision before which every host changed, so that all have to be judged. */
function timePass(asked: Vm, rounds: number): number[] {
  const { hosts, placed } = busyHosts(HOSTS);
  const planner = createPlanner({ hosts, placed, policy: BARE_POLICY });
  return Array.from({ length: rounds }, () => {
    for (const each of placed) {
      planner.release(each.vm.id);
      planner.take(each);
    }
    const began = performance.now();
    planner.decide(asked);
    return (performance.now() - began) / HOSTS;
  });
}

/** Whether a VM fits a host's nodes, and where: the inner loop of everything. */
export async function numaFitRows(bench: Bench): Promise<readonly Row[]> {
  const rows: Row[] = [];
  const { hosts, placed } = busyHosts(1);
  const [host] = hosts;
  if (host === undefined) throw new Error('no host');
  await using nova = await bench.nova();
  for (const { name, cells } of GUESTS) {
    const asked = pinnedVm('asked', cells, { hugepageMib: 1024 });
    // Compiled before it is timed, like the peer's imports before its first answer.
    timePass(asked, PASSES);
    const ours = timePass(asked, PASSES);
    const theirs = await nova.time(novaHost(host, placed), novaGuest(asked), HOSTS, ADVERSARY_LIMIT_MS);
    const theirMs = median(theirs?.microseconds ?? []) / 1000;
    rows.push({
      what: `NUMA fit per host, ${name}, ${HOSTS} changed hosts`,
      ours: duration(median(ours)),
      theirs: duration(theirMs),
      ratio: theirMs / median(ours),
      goal: '≥ 100×',
      rounds: PASSES,
      peer: 'Nova numa_fit_instance_to_host',
    });
  }
  return [...rows, await adversary(bench, 6), await adversary(bench, 8)];
}

async function adversary(bench: Bench, cells: number): Promise<Row> {
  const short = oneCellShort(16, cells);
  timeOurs(short, short.asked, ADVERSARY_ROUNDS);
  const ours = timeOurs(short, short.asked, ADVERSARY_ROUNDS);
  await using nova = await bench.nova();
  const guest = novaGuest(short.asked);
  const theirs = await nova.time(novaHost(short.host, short.placed), guest, 1, ADVERSARY_LIMIT_MS);
  const theirMs = (theirs?.microseconds[0] ?? ADVERSARY_LIMIT_MS * 1000) / 1000;
  return {
    what: `the adversary: ${cells} guest cells on 16 nodes, one too few`,
    ours: duration(median(ours)),
    theirs: theirs === null ? `> ${ADVERSARY_LIMIT_MS / 1000} s` : duration(theirMs),
    ratio: theirMs / median(ours),
    goal: '≥ 100×, ≤ 20 µs',
    rounds: 1,
    peer: 'Nova numa_fit_instance_to_host',
  };
}

// What one request to the Python process holds: some 10 MB of JSON.
const BATCH = 1_000;

/** The same yes or no for a VM on a crowded host, on random ones. Where we differ, Nova's code is asked again, cell by cell. */
export async function verdictRows(bench: Bench): Promise<readonly Row[]> {
  await using nova = await bench.nova();
  const random = seededRandom(1);
  let [done, fits, same, explained] = [0, 0, 0, 0];
  while (done < bench.cases) {
    const cases = Array.from({ length: Math.min(BATCH, bench.cases - done) }, () => randomCase(random));
    const asked = cases.map(({ host, placed, asked: vm }) => [novaHost(host, placed), novaGuest(vm)] as const);
    const theirs = await nova.verdicts(asked);
    const ours = cases.map((each) => createPlanner(snapshotOf(each)).decide(each.asked).ok);
    const different = cases.map((_, index) => index).filter((index) => ours[index] !== theirs[index]);
    const exact = await nova.exactVerdicts(different.map((index) => asked[index] as (typeof asked)[number]));
    for (const [at, index] of different.entries()) {
      if (exact[at] === ours[index]) explained++;
      else
        console.error(`bench: case ${done + index}: we say ${ours[index]}, Nova ${theirs[index]}, and so cell by cell`);
    }
    done += cases.length;
    same += cases.length - different.length;
    fits += ours.filter((fit) => fit).length;
  }
  const count = (value: number): string => value.toLocaleString('en');
  return [
    {
      what: 'the same verdict on random hosts and VMs',
      ours: `${count(same)} of ${count(done)} (${percent(fits / done)} fit)`,
      theirs: `${count(explained)} more cell by cell`,
      ratio: (same + explained) / done,
      goal: 'all, or explained',
      rounds: done,
      peer: 'Nova numa_fit_instance_to_host',
    },
  ];
}
