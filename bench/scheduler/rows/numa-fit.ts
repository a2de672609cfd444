// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import { seededRandom } from '@busbar/core/random';
import type { GuestCell, PlacedVm, Snapshot, Vm } from '@busbar/scheduler/model';
import { createPlanner } from '@busbar/scheduler/planner';
import { median, type Row } from '../../measure.ts';
import { type Bench, duration, percent } from '../bench.ts';
import { type NumaCase, oneCellShort, randomCase } from '../numa/cases.ts';
import { novaGuest, novaHost } from '../numa/translate.ts';
import { BARE_POLICY, hostsOf, type NodeShape, pinnedVm } from '../ours/model.ts';

const GIB = 1024;
const ROUNDS = 500;
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

/** One host of 2 × 32 threads, on which each node has a VM of 8 vCPUs. */
function busyHost(): Pick<NumaCase, 'host' | 'placed'> {
  const [host] = hostsOf(1, [NODE, NODE]);
  if (host === undefined) throw new Error('no host');
  const planner = createPlanner(snapshotOf({ host, placed: [] }));
  const placed = [0, 1].map((index): PlacedVm => {
    const vm = pinnedVm(`on-${index}`, cellsOf(2, 16), { hugepageMib: 1024 });
    const answer = planner.place(vm);
    if (!answer.ok) throw new Error(answer.error.summary);
    return { vm, placement: answer.value };
  });
  return { host, placed };
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

/** Whether a VM fits a host's nodes, and where: the inner loop of everything. */
export async function numaFitRows(bench: Bench): Promise<readonly Row[]> {
  const rows: Row[] = [];
  const state = busyHost();
  await using nova = await bench.nova();
  for (const { name, cells } of GUESTS) {
    const asked = pinnedVm('asked', cells, { hugepageMib: 1024 });
    // Compiled before it is timed, like the peer's imports before its first answer.
    timeOurs(state, asked, ROUNDS);
    const ours = timeOurs(state, asked, ROUNDS);
    const theirs = await nova.time(novaHost(state.host, state.placed), novaGuest(asked), ROUNDS, ADVERSARY_LIMIT_MS);
    const theirMs = median(theirs?.microseconds ?? []) / 1000;
    rows.push({
      what: `NUMA fit per host, ${name}`,
      ours: duration(median(ours)),
      theirs: duration(theirMs),
      ratio: theirMs / median(ours),
      goal: '≥ 100×',
      rounds: ROUNDS,
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
    ours: spreadless(ours),
    theirs: theirs === null ? `> ${ADVERSARY_LIMIT_MS / 1000} s` : duration(theirMs),
    ratio: theirMs / median(ours),
    goal: '≥ 100×, ≤ 20 µs',
    rounds: 1,
    peer: 'Nova numa_fit_instance_to_host',
  };
}

const spreadless = (milliseconds: readonly number[]): string => duration(median(milliseconds));

// What one request to the Python process holds: some 10 MB of JSON.
const BATCH = 1_000;
const SHOWN = 5;

/** The same yes or no for a VM on a crowded host, on random ones. */
export async function verdictRows(bench: Bench): Promise<readonly Row[]> {
  await using nova = await bench.nova();
  const random = seededRandom(1);
  let [done, fits, same] = [0, 0, 0];
  while (done < bench.cases) {
    const cases = Array.from({ length: Math.min(BATCH, bench.cases - done) }, () => randomCase(random));
    const theirs = await nova.verdicts(
      cases.map(({ host, placed, asked }) => [novaHost(host, placed), novaGuest(asked)] as const),
    );
    for (const [index, each] of cases.entries()) {
      const ours = createPlanner(snapshotOf(each)).decide({ ...each.asked, id: 'asked' as VmId });
      if (ours.ok) fits++;
      if (ours.ok === theirs[index]) same++;
      else if (done + index + 1 - same <= SHOWN) {
        const verdict = ours.ok ? JSON.stringify(ours.value.cells) : ours.error.summary;
        console.error(`bench: case ${done + index}: Nova says ${theirs[index] ? 'yes' : 'no'}, we say ${verdict}`);
      }
    }
    done += cases.length;
  }
  return [
    {
      what: 'the same verdict on random hosts and VMs',
      ours: `${same.toLocaleString('en')} of ${done.toLocaleString('en')}`,
      theirs: `${percent(fits / done)} fit`,
      ratio: same / done,
      goal: 'all, or explained',
      rounds: done,
      peer: 'Nova numa_fit_instance_to_host',
    },
  ];
}
