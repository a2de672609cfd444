// SPDX-License-Identifier: Apache-2.0
import {
  CORES,
  DEVICES,
  GENERAL,
  ISOLATED,
  MEMORY,
  PAGES_1G,
  PAGES_2M,
  SHARED_VCPU,
  SMT_CORES,
  THREADS,
  threadShares,
  WIDE,
} from '../capacity/dimensions.ts';
import type { Ledger } from '../capacity/ledger.ts';
import { demandOn, fitsNode, type Room } from '../fit/room.ts';
import { seatWhole } from '../fit/seat.ts';
import { seatSpread } from '../fit/spread.ts';
import type {
  CheckerName,
  CheckerRefusal,
  Host,
  HostVerdict,
  PlacementPolicy,
  Refusal,
  ScorePart,
  Vm,
} from '../model.ts';
import { type Costs, WEIGHTS } from '../rank/cost.ts';
import type { Groups } from '../rule/groups.ts';
import type { Demand, Shape } from '../shape/shape.ts';
import type { Survival } from '../survive/failover.ts';

export interface Inquiry {
  readonly vm: Vm;
  readonly shape: Shape;
  readonly ledger: Ledger;
  readonly free: Room;
  readonly groups: Groups;
  readonly policy: PlacementPolicy;
  readonly costs: Costs;
  readonly survives: (host: number) => Survival;
  readonly vmName: (id: string) => string;
}

/** Asks every checker of one host, so that a refusal names everything that is in the way. */
export function explainHost(inquiry: Inquiry, number: number): HostVerdict {
  const host = inquiry.free.topology.hosts[number] as Host;
  const refusals = [
    ...hostRefusals(inquiry.vm, inquiry.shape, host),
    ...ruleRefusals(inquiry, number),
    ...roomRefusals(inquiry, number),
  ];
  if (refusals.length === 0) {
    const survival = inquiry.survives(number);
    if (!survival.ok) refusals.push({ checker: 'n-1', reason: survivalText(survival) });
  }
  const fits = refusals.length === 0;
  return { host: host.id, fits, refusals, score: fits ? scoreOf(inquiry, number) : [] };
}

function survivalText({ loss, proven, homeless }: Survival): string {
  const shown = homeless.slice(0, NAMES_SHOWN).map((name) => `"${name}"`);
  const more = homeless.length > NAMES_SHOWN ? ` and ${homeless.length - NAMES_SHOWN} more` : '';
  if (!proven) {
    const whom = shown.length === 0 ? 'every HA VM' : `${shown.join(', ')}${more}`;
    return `no plan was found that gives ${whom} a place after the loss of ${loss}, and not every plan could be tried`;
  }
  const whom =
    shown.length === 0 ? 'not every HA VM would have a place' : `${shown.join(', ')}${more} would have no place`;
  return `after the loss of ${loss} ${whom}`;
}

/** Enough to see whom it is about. */
const NAMES_SHOWN = 5;

/** What can be said of a host for all VMs of a shape, whatever is on it. */
function hostRefusals(vm: Vm, shape: Shape, host: Host): readonly CheckerRefusal[] {
  const refusals: CheckerRefusal[] = [];
  const add = (checker: CheckerName, reason: string) => refusals.push({ checker, reason });
  if (host.notSchedulable !== '') add('state', host.notSchedulable);
  if (vm.pinnedHost !== '' && vm.pinnedHost !== host.id) add('pinned-host', `pinned to ${vm.pinnedHost}`);
  const missing = Object.entries(vm.hostSelector).filter(([key, value]) => host.labels[key] !== value);
  if (missing.length > 0) {
    add('host-selector', `label ${missing.map(([key, value]) => `${key}=${value}`).join(', ')} missing`);
  }
  const unreached = vm.networks.filter(({ id }) => !host.networks.has(id));
  if (unreached.length > 0) add('network', `no bridge for ${unreached.map(({ name }) => name).join(', ')}`);
  if (shape.unknownDevice !== null) add('device', `no host has a device of class ${shape.unknownDevice}`);
  return refusals;
}

function ruleRefusals({ vm, groups, vmName }: Inquiry, host: number): readonly CheckerRefusal[] {
  return vm.rules.flatMap((rule): readonly CheckerRefusal[] => {
    const others = groups.others(vm, rule);
    const named = (id: string) => `"${vmName(id)}" of group "${rule.group}"`;
    if (rule.kind === 'together') {
      const [first] = others;
      if (first === undefined || others.some(([, at]) => at === host)) return [];
      return [{ checker: 'together', reason: `${named(first[0])} is on ${groups.hostName(first[1])}` }];
    }
    const here = others.find(([, at]) => at === host);
    if (here !== undefined) return [{ checker: rule.kind, reason: `${named(here[0])} is here` }];
    if (rule.kind === 'apart') return [];
    const near = others.find(([, at]) => groups.sharedDomain(at, host) !== null);
    if (near === undefined) return [];
    const shared = groups.sharedDomain(near[1], host) === 'powerFeed' ? 'power feed' : 'ring segment';
    return [{ checker: 'pair', reason: `${named(near[0])} is on ${groups.hostName(near[1])}, on the same ${shared}` }];
  });
}

/** What a node can be short of: the checker, and what it says about it. */
interface Shortage {
  readonly checker: CheckerName;
  readonly text: string;
}

function roomRefusals(inquiry: Inquiry, host: number): readonly CheckerRefusal[] {
  const { shape, free, policy } = inquiry;
  if (shape.unknownDevice !== null) return [];
  const { nodeOfHost, nodeIds, topology } = { ...free.topology, topology: free.topology };
  const nodes: number[] = [];
  for (let node = nodeOfHost[host] ?? 0; node < (nodeOfHost[host + 1] ?? 0); node++) nodes.push(node);
  if (shape.whole !== null && nodes.some((node) => wholeFits(inquiry, host, node))) return [];
  if (seatSpread(free, shape, host, policy) !== null) return [];
  if (nodes.length === 0) return [{ checker: 'numa', reason: 'the host has no NUMA node' }];
  const prefix = (node: number) => (nodes.length === 1 ? '' : `NUMA node ${nodeIds[node]}: `);
  if (shape.whole === null) {
    const lines = shape.cells.map((cell, index) => {
      const fitting = nodes.filter((node) => fitsNode(free, demandOn(topology, cell, node), node));
      return `cell ${index} (${cell.vcpus} vCPUs, ${cell.memoryMib} MiB) fits ${fitting.length === 0 ? 'no node' : `node ${fitting.map((node) => nodeIds[node]).join(', ')}`}`;
    });
    const few =
      shape.cells.length > nodes.length ? `needs ${shape.cells.length} NUMA nodes, the host has ${nodes.length}; ` : '';
    return [{ checker: 'numa', reason: `${few}each cell needs a node of its own: ${lines.join('; ')}` }];
  }
  const whole = shape.whole;
  const shortages = new Map(nodes.map((node) => [node, shortagesOf(inquiry, demandOn(topology, whole, node), node)]));
  const refusals: CheckerRefusal[] = [];
  for (const checker of ROOM_CHECKERS) {
    const short = nodes.map((node) => shortages.get(node)?.find((each) => each.checker === checker));
    // Some node has enough of this, or all together have and the VM may be spread.
    if (
      short.some((each) => each === undefined) ||
      (shape.maySplit && nodes.length > 1 && sumSuffices(inquiry, checker, nodes))
    )
      continue;
    refusals.push({
      checker,
      reason: nodes.map((node, index) => `${prefix(node)}${short[index]?.text}`).join('; '),
    });
  }
  if (shape.looseDevices.length > 0 && refusals.every(({ checker }) => checker !== 'device')) {
    const wanted = new Map<number, number>();
    for (const { classIndex, count } of [...shape.boundDevices, ...shape.looseDevices]) {
      wanted.set(classIndex, (wanted.get(classIndex) ?? 0) + count);
    }
    for (const [classIndex, count] of wanted) {
      const have = looseCount(free, host, classIndex);
      if (have < count) {
        refusals.push({
          checker: 'device',
          reason: `needs ${count} ${topology.deviceClasses[classIndex]}, ${have} free`,
        });
      }
    }
  }
  if (refusals.length > 0) return refusals;
  const each = nodes.map((node) => `${prefix(node)}${(shortages.get(node) ?? []).map(({ text }) => text).join(', ')}`);
  return [{ checker: 'numa', reason: `no NUMA node has all that is needed: ${each.join('; ')}` }];
}

function wholeFits({ shape, free }: Inquiry, host: number, node: number): boolean {
  return (
    shape.whole !== null &&
    fitsNode(free, demandOn(free.topology, shape.whole, node), node) &&
    seatWhole(free, shape, host, node) !== null
  );
}

const ROOM_CHECKERS = ['cpu', 'smt', 'memory', 'hugepages', 'device'] as const;

/** In one node, by checker. */
function shortagesOf(inquiry: Inquiry, demand: Demand, node: number): readonly Shortage[] {
  const { shape, free, ledger, policy } = inquiry;
  const { topology, amounts } = free;
  const { needs } = shape;
  const shares = threadShares(policy.vcpuOvercommit);
  const need = (dimension: number) => {
    const at = demand.dimensions.indexOf(dimension);
    return at < 0 ? 0 : (demand.amounts[at] ?? 0);
  };
  const have = (dimension: number) => Math.max(0, amounts[node * topology.stride + dimension] ?? 0);
  const short = (dimension: number) => need(dimension) > have(dimension);
  const found: Shortage[] = [];
  const list = (cpus: readonly number[]) =>
    cpus.length === 0 ? '' : `: ${cpus.slice(0, 16).join(', ')}${cpus.length > 16 ? ', …' : ''}`;
  if (needs.cpuPolicy === 'shared') {
    if (short(GENERAL + THREADS) || short(GENERAL + WIDE)) {
      const left = Math.floor(have(GENERAL + THREADS) / SHARED_VCPU);
      const cpus = ledger.freeCpus(node, GENERAL).length;
      found.push({
        checker: 'cpu',
        text: `needs ${needs.vcpus} shared vCPUs, ${left} free (${cpus} CPUs × ${policy.vcpuOvercommit})`,
      });
    }
  } else {
    for (const [pool, word] of [
      [GENERAL, 'CPUs of its own'],
      [ISOLATED, 'isolated CPUs'],
    ] as const) {
      const thread = pool === GENERAL ? shares : 1;
      if (short(pool + THREADS)) {
        const cpus = ledger.freeCpus(node, pool);
        const usable = Math.floor(have(pool + THREADS) / thread);
        // Shared VMs run on some of the free ones.
        const note =
          usable < cpus.length ? `, ${usable} free beside the shared VMs` : `, ${cpus.length} free${list(cpus)}`;
        found.push({ checker: 'cpu', text: `needs ${Math.ceil(need(pool + THREADS) / thread)} ${word}${note}` });
      } else if (short(pool + CORES) || short(pool + WIDE) || short(pool + SMT_CORES)) {
        const threads = short(pool + SMT_CORES) ? ' with two threads' : '';
        const dimension = short(pool + SMT_CORES) ? SMT_CORES : CORES;
        found.push({
          checker: 'smt',
          text: `needs ${need(pool + dimension)} whole cores${threads}, ${have(pool + dimension)} free`,
        });
      }
    }
  }
  if (short(MEMORY)) found.push({ checker: 'memory', text: `needs ${need(MEMORY)} MiB, ${have(MEMORY)} MiB free` });
  for (const [dimension, size] of [
    [PAGES_2M, '2 MiB'],
    [PAGES_1G, '1 GiB'],
  ] as const) {
    if (short(dimension)) {
      found.push({ checker: 'hugepages', text: `needs ${need(dimension)} pages of ${size}, ${have(dimension)} free` });
    }
  }
  const lacking = shape.boundDevices.filter(({ classIndex }) => short(DEVICES + classIndex));
  for (const { classIndex, count } of lacking) {
    found.push({
      checker: 'device',
      text: `needs ${count} ${topology.deviceClasses[classIndex]}, ${have(DEVICES + classIndex)} free`,
    });
  }
  return found;
}

/** Whether all nodes of the host together have enough of what the checker looks at. */
function sumSuffices({ shape, free }: Inquiry, checker: CheckerName, nodes: readonly number[]): boolean {
  const { topology, amounts } = free;
  const [first] = nodes;
  if (shape.whole === null || first === undefined) return false;
  const demand = demandOn(topology, shape.whole, first);
  return (
    DIMENSIONS_OF[checker]?.(topology.deviceClasses.length).every((dimension) => {
      const at = demand.dimensions.indexOf(dimension);
      if (at < 0) return true;
      const have = nodes.reduce((sum, node) => sum + Math.max(0, amounts[node * topology.stride + dimension] ?? 0), 0);
      return have >= (demand.amounts[at] ?? 0);
    }) ?? false
  );
}

const DIMENSIONS_OF: Partial<Record<CheckerName, (classes: number) => readonly number[]>> = {
  cpu: () => [GENERAL + THREADS, ISOLATED + THREADS],
  smt: () => [
    GENERAL + CORES,
    GENERAL + WIDE,
    GENERAL + SMT_CORES,
    ISOLATED + CORES,
    ISOLATED + WIDE,
    ISOLATED + SMT_CORES,
  ],
  memory: () => [MEMORY],
  hugepages: () => [PAGES_2M, PAGES_1G],
};

function looseCount({ topology, amounts }: Room, host: number, classIndex: number): number {
  const first = topology.nodeOfHost[host] ?? 0;
  let sum = amounts[first * topology.stride + DEVICES + topology.deviceClasses.length + classIndex] ?? 0;
  for (let node = first; node < (topology.nodeOfHost[host + 1] ?? 0); node++) {
    sum += amounts[node * topology.stride + DEVICES + classIndex] ?? 0;
  }
  return sum;
}

function scoreOf({ vm, shape, free, costs, groups, policy }: Inquiry, host: number): readonly ScorePart[] {
  const { hosts } = free.topology;
  const parts: ScorePart[] = [];
  const preference = vm.preferredHosts.indexOf(hosts[host]?.id ?? '');
  if (preference >= 0) {
    parts.push({ name: 'preferredHost', value: -WEIGHTS.preferredHost * (vm.preferredHosts.length - preference) });
  }
  const broken = vm.rules.filter((rule) => {
    const ruling = groups.ruling(vm, rule, true);
    return ruling !== null && !groups.allows(ruling, host);
  }).length;
  if (broken > 0) parts.push({ name: 'softRule', value: WEIGHTS.softRule * broken });
  const node = costs.cheapest(shape, host);
  if (node >= 0) return [...parts, ...costs.parts(shape, node)];
  const seats = seatSpread(free, shape, host, policy)?.seats ?? [];
  if (shape.cells.length === 0 && seats.length > 1) {
    parts.push({ name: 'splitNuma', value: WEIGHTS.splitNuma * (seats.length - 1) });
  }
  return [...parts, { name: 'emptiness', value: seats.reduce((sum, seat) => sum + costs.emptiness(seat.node), 0) }];
}

/**
 * A refusal in one line: each host with what stands in the way, or, where there are many, how often each checker refused and
 * one example of each.
 */
export function summaryOf(verdicts: readonly HostVerdict[]): string {
  if (verdicts.length === 0) return 'the cluster has no host that runs VMs';
  const text = ({ checker, reason }: CheckerRefusal) => `${checker}: ${reason}`;
  if (verdicts.length <= HOSTS_NAMED_MAX) {
    return verdicts.map(({ host, refusals }) => `${host}: ${refusals.map(text).join(', ')}`).join('; ');
  }
  const first = new Map<CheckerName, { count: number; readonly host: string; readonly reason: string }>();
  for (const { host, refusals } of verdicts) {
    for (const { checker, reason } of refusals) {
      const known = first.get(checker);
      if (known === undefined) first.set(checker, { count: 1, host, reason });
      else known.count++;
    }
  }
  return [...first]
    .toSorted(([, a], [, b]) => b.count - a.count)
    .map(
      ([checker, { count, host, reason }]) =>
        `${checker} refuses ${count} of ${verdicts.length} hosts (${host}: ${reason})`,
    )
    .join('; ');
}

/** Its words are found when they are asked for: a stream of requests that are refused does not pay for them. */
export function refusalOf(explain: () => readonly HostVerdict[]): Refusal {
  let summary: string | undefined;
  return {
    get summary() {
      summary ??= summaryOf(explain());
      return summary;
    },
  };
}

/** Why this host, in one line: how many fit, what the choice was made by, and what stands in the way elsewhere. */
export function reasonOf(verdicts: readonly HostVerdict[], chosen: string): string {
  const fitting = verdicts.filter(({ fits }) => fits);
  const parts = verdicts.find(({ host }) => host === chosen)?.score ?? [];
  const score = parts.map(({ name, value }) => `${name} ${Number(value.toPrecision(3))}`).join(', ');
  const best = fitting.length === 1 ? 'the only host that fits' : `the best of ${fitting.length} hosts that fit`;
  const refused = verdicts.filter(({ fits }) => !fits);
  const others = refused.length === 0 ? '' : `; ${summaryOf(refused)}`;
  return `${best} of ${verdicts.length}${score === '' ? '' : ` (${score})`}${others}`;
}

/** As many lines as an engineer reads. */
const HOSTS_NAMED_MAX = 8;
