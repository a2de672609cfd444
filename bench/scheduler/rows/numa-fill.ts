// SPDX-License-Identifier: Apache-2.0
import type { HostId } from '@busbar/core/ids';
import type { Vm } from '@busbar/scheduler/model';
import type { Row } from '../../measure.ts';
import { type Bench, mean, percent } from '../bench.ts';
import { novaHost } from '../numa/translate.ts';
import { emptyCluster } from '../ours/cluster.ts';
import { hostOf, hostsOf, type NodeShape, pinnedVm } from '../ours/model.ts';
import type { NovaGuest } from '../peers/nova/nova.ts';
import { volumeBound } from '../workload/bound.ts';
import { type Arrival, type Capacity, HOST } from '../workload/flavour.ts';
import { generate, type Share } from '../workload/generate.ts';

const GIB = 1024;
const SEEDS = [1, 2, 3];
// Nova's loop takes 5 ms per VM on 20 hosts.
const HOSTS = 20;
const NODES_PER_HOST = 2;
const NODE: NodeShape = {
  cpus: HOST.cpus / NODES_PER_HOST,
  threadsPerCore: 2,
  memoryMib: HOST.memoryMib / NODES_PER_HOST,
  // All of it: these VMs want nothing else.
  hugepages: [{ sizeMib: GIB, pages: HOST.memoryMib / NODES_PER_HOST / GIB }],
};

/** Pinned VMs with much CPU or much memory, none larger than a NUMA node. */
const WHOLE: readonly Share[] = [
  { vcpus: 1, memoryGib: 4, share: 0.1 },
  { vcpus: 2, memoryGib: 4, share: 0.15 },
  { vcpus: 2, memoryGib: 16, share: 0.17 },
  { vcpus: 4, memoryGib: 8, share: 0.16 },
  { vcpus: 4, memoryGib: 32, share: 0.13 },
  { vcpus: 8, memoryGib: 16, share: 0.13 },
  { vcpus: 8, memoryGib: 48, share: 0.06 },
  { vcpus: 12, memoryGib: 48, share: 0.05 },
  { vcpus: 16, memoryGib: 32, share: 0.05 },
];
const LARGE_SHARE = 0.02;
/** Some that have to be split: they need two nodes of one host, which no bound on the sums knows about. */
const WITH_LARGE: readonly Share[] = [
  ...WHOLE.map((each) => ({ ...each, share: each.share * (1 - LARGE_SHARE) })),
  { vcpus: 40, memoryGib: 160, share: LARGE_SHARE },
];

interface Filled {
  readonly first: number;
  readonly total: number;
  /** VMs on more than one node. */
  readonly split: number;
  /** Of those, VMs that had room on one node of some host when they were placed. */
  readonly avoidable: number;
  readonly bound: number;
  /** Share of CPUs or memory that the placed VMs have, of the scarcer. */
  readonly used: number;
}

/** Host and nodes of each VM; null: refused. */
type Where = { readonly host: number; readonly cells: readonly number[] } | null;

/** Pinned VMs with 1 GiB pages over hosts of two nodes. */
export async function numaFillRows(bench: Bench): Promise<readonly Row[]> {
  return [
    ...(await compare(bench, 'NUMA fill', WHOLE, '≥ 1×, ≥ 98 %')),
    ...(await compare(bench, 'NUMA fill, 2 % larger than a node', WITH_LARGE, '≥ 1×')),
  ];
}

async function compare(bench: Bench, name: string, mix: readonly Share[], goal: string): Promise<readonly Row[]> {
  await using nova = await bench.nova();
  const [ours, theirs]: [Filled[], Filled[]] = [[], []];
  for (const seed of SEEDS) {
    const all = generate(mix, seed, 15 * HOSTS * NODES_PER_HOST);
    // The nodes' sums are the hosts' sums: what bounds the prefix on nodes bounds it on hosts.
    const bound = volumeBound(all, HOSTS, HOST);
    const stream = all.slice(0, Math.ceil(1.15 * bound));
    ours.push(judge(stream, bound, placeOurs(stream)));
    theirs.push(
      judge(stream, bound, await nova.fill(HOSTS, novaHost(hostOf(0, [NODE, NODE]), []), stream.map(asGuest))),
    );
  }
  const average = (filled: readonly Filled[], figure: (each: Filled) => number): number => mean(filled.map(figure));
  const first = (filled: readonly Filled[]): string => {
    const share = average(filled, (each) => each.first) / average(filled, (each) => each.bound);
    return `${average(filled, (each) => each.first).toFixed(1)}, ${percent(share)} of bound`;
  };
  const total = (filled: readonly Filled[]): string =>
    `${average(filled, (each) => each.total).toFixed(1)} with ${percent(average(filled, ({ used }) => used))}`;
  const splits = (filled: readonly Filled[]): string =>
    `${percent(average(filled, (each) => each.split / each.total))}, ${average(filled, ({ avoidable }) => avoidable)} avoidable`;
  const common = { rounds: SEEDS.length, peer: 'Nova: NUMA filter, RAM and CPU weighers' };
  const ratio = (figure: (each: Filled) => number): number => average(ours, figure) / average(theirs, figure);
  return [
    {
      ...common,
      what: `${name}: VMs before the first refusal`,
      ours: first(ours),
      theirs: first(theirs),
      ratio: ratio((each) => each.first),
      goal,
    },
    {
      ...common,
      what: `${name}: VMs in all`,
      ours: total(ours),
      theirs: total(theirs),
      ratio: ratio((each) => each.total),
      goal: '≥ 1×',
    },
    {
      ...common,
      what: `${name}: VMs split over nodes`,
      ours: splits(ours),
      theirs: splits(theirs),
      ratio: null,
      goal: '0 avoidable',
    },
  ];
}

/** A flavour's hw:numa_nodes is chosen by who makes the flavour: as few as it takes, as our automatic guests have. */
function asGuest({ vcpus, memoryMib }: Arrival): NovaGuest {
  const count = Math.ceil(Math.max(vcpus / NODE.cpus, memoryMib / NODE.memoryMib));
  const cell = [vcpus / count, memoryMib / count] as const;
  return { threads: 'prefer', page: GIB * 1024, cells: Array.from({ length: count }, () => cell) };
}

function placeOurs(stream: readonly Arrival[]): Where[] {
  const hosts = hostsOf(HOSTS, [NODE, NODE]);
  const indexes = new Map<HostId, number>(hosts.map(({ id }, index) => [id, index]));
  const planner = emptyCluster(hosts);
  return stream.map((arrival, index) => {
    const needs: Partial<Vm> = { cells: [], guestNuma: 'automatic', hugepageMib: 1024 };
    const answer = planner.place(pinnedVm(`vm${index}`, [arrival], needs));
    if (!answer.ok) return null;
    return { host: indexes.get(answer.value.host) ?? -1, cells: answer.value.cells.map(({ numaNode }) => numaNode) };
  });
}

/** Replays what somebody did with the stream, on free CPUs and pages of each node. */
function judge(stream: readonly Arrival[], bound: number, where: readonly Where[]): Filled {
  const nodes = Array.from({ length: HOSTS * NODES_PER_HOST }, () => ({ cpus: NODE.cpus, memoryMib: NODE.memoryMib }));
  let [split, avoidable] = [0, 0];
  for (const [index, { vcpus, memoryMib }] of stream.entries()) {
    const at = where[index] ?? null;
    if (at === null) continue;
    if (at.cells.length > 1) {
      split++;
      if (nodes.some((node) => node.cpus >= vcpus && node.memoryMib >= memoryMib)) avoidable++;
    }
    for (const cell of at.cells) {
      const node = nodes[at.host * NODES_PER_HOST + cell];
      if (node === undefined) throw new Error(`no NUMA node ${cell} on host ${at.host}`);
      node.cpus -= vcpus / at.cells.length;
      node.memoryMib -= memoryMib / at.cells.length;
      if (node.cpus < 0 || node.memoryMib < 0)
        throw new Error(`NUMA node ${cell} of host ${at.host} has less than it gave`);
    }
  }
  const refusal = where.indexOf(null);
  const total = where.filter((each) => each !== null).length;
  const free = (figure: (node: Capacity) => number): number => nodes.reduce((sum, node) => sum + figure(node), 0);
  const used = Math.max(
    1 - free(({ cpus }) => cpus) / (HOSTS * HOST.cpus),
    1 - free(({ memoryMib }) => memoryMib) / (HOSTS * HOST.memoryMib),
  );
  return { first: refusal < 0 ? stream.length : refusal, total, split, avoidable, bound, used };
}
