// SPDX-License-Identifier: Apache-2.0
/** Random small clusters and VMs, small enough for the oracle and mean enough to be interesting. */
import type { HostId, NetworkId, VmId } from '@busbar/core/ids';
import fc from 'fast-check';
import type { Device, Host, NumaNode, PlacementPolicy, SurvivePolicy, Vm } from '../model.ts';
import { vm as plainVm } from './build.ts';

export interface ClusterBounds {
  readonly hosts: readonly [number, number];
  readonly nodesMax: number;
  readonly coresMax: number;
  readonly vcpusMax: number;
  readonly survive: readonly SurvivePolicy[];
}

const NETWORKS = ['net1', 'net2'] as const;
const GROUPS = ['g1', 'g2'] as const;
const CLASSES = ['nic', 'gpu'] as const;

const often = <T>(usual: T, rare: fc.Arbitrary<T>, weight = 4): fc.Arbitrary<T> =>
  fc.oneof({ weight, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: rare });

interface RandomCore {
  readonly threads: 1 | 2;
  readonly use: 'general' | 'isolated' | 'reserved' | 'half-reserved' | 'half-isolated';
}

interface RandomNode {
  readonly cores: readonly RandomCore[];
  readonly normalGib: number;
  readonly pages1g: number;
  readonly pages2mGib: number;
}

interface RandomHost {
  readonly nodes: readonly RandomNode[];
  readonly devices: readonly { readonly class: string; readonly node: number }[];
  readonly notSchedulable: boolean;
  readonly zone: string;
  readonly networks: number;
  readonly powerFeed: string;
  readonly ringSegment: string;
  readonly rack: string;
}

const core: fc.Arbitrary<RandomCore> = fc.record({
  threads: fc.constantFrom(1, 2, 2),
  use: fc.constantFrom(
    ...([
      'general',
      'general',
      'general',
      'general',
      'isolated',
      'isolated',
      'reserved',
      'half-reserved',
      'half-isolated',
    ] as const),
  ),
});

const uniformCores = (max: number): fc.Arbitrary<readonly RandomCore[]> =>
  fc
    .record({
      count: fc.integer({ min: 2, max: max + 1 }),
      threads: fc.constantFrom(1, 2),
      isolated: fc.constantFrom(0, 0, 1, 2),
    })
    .map(({ count, threads, isolated }) =>
      Array.from(
        { length: count },
        (_, i) => ({ threads, use: i >= count - isolated ? 'isolated' : 'general' }) as RandomCore,
      ),
    );

const hostOf = (bounds: ClusterBounds): fc.Arbitrary<RandomHost> =>
  fc.record({
    nodes: fc.array(
      fc.record({
        cores: fc.oneof(
          { weight: 3, arbitrary: uniformCores(bounds.coresMax) },
          { weight: 1, arbitrary: fc.array(core, { maxLength: bounds.coresMax }) },
        ),
        normalGib: fc.constantFrom(0, 2, 4, 4, 6, 8),
        pages1g: often(0, fc.integer({ min: 1, max: 3 }), 2),
        pages2mGib: often(0, fc.integer({ min: 1, max: 3 }), 3),
      }),
      { minLength: 1, maxLength: bounds.nodesMax, size: 'max' },
    ),
    devices: fc.array(fc.record({ class: fc.constantFrom(...CLASSES), node: fc.integer({ min: -1, max: 2 }) }), {
      maxLength: 4,
    }),
    notSchedulable: often(false, fc.constant(true), 25),
    zone: fc.constantFrom('a', 'a', 'a', 'b'),
    networks: fc.constantFrom(3, 3, 3, 3, 1, 2),
    powerFeed: fc.constantFrom('', 'A', 'B', 'C'),
    ringSegment: fc.constantFrom('', '', 'R1', 'R2'),
    rack: fc.constantFrom('', '', 'K1', 'K2'),
  });

function buildHost(index: number, random: RandomHost): Host {
  const [reservedCpus, isolatedCpus]: [number[], number[]] = [[], []];
  let next = 0;
  const numaNodes = random.nodes.map((node, id): NumaNode => {
    const sets = node.cores.map(({ threads, use }) => {
      const cpus = Array.from({ length: threads }, () => next++);
      const [first = 0] = cpus;
      if (use === 'reserved') reservedCpus.push(...cpus);
      if (use === 'half-reserved') reservedCpus.push(first);
      if (use === 'isolated') isolatedCpus.push(...cpus);
      if (use === 'half-isolated') isolatedCpus.push(first);
      return cpus;
    });
    const { normalGib, pages1g, pages2mGib } = node;
    return {
      id,
      cpus: sets.flat(),
      smtSiblings: sets.filter((set) => set.length > 1),
      memoryMib: 1024 * (normalGib + pages1g + pages2mGib),
      hugepages: [
        { sizeMib: 2, pages: 512 * pages2mGib },
        { sizeMib: 1024, pages: pages1g },
      ],
      distances: [],
    };
  });
  const devices = random.devices.map(
    ({ class: name, node }, i): Device => ({
      address: `0000:0${i}:00.0`,
      class: name,
      numaNode: node < 0 ? null : node % random.nodes.length,
    }),
  );
  const { zone, powerFeed, ringSegment, rack } = random;
  return {
    id: `h${index}` as HostId,
    notSchedulable: random.notSchedulable ? 'drained' : '',
    labels: { zone },
    domains: { powerFeed, ringSegment, rack },
    numaNodes,
    reservedCpus,
    isolatedCpus,
    reservedMemoryMib: 0,
    devices,
    networks: new Set(NETWORKS.filter((_, i) => (random.networks >> i) & 1).map((id) => id as string as NetworkId)),
  };
}

export const clusterOf = (bounds: ClusterBounds): fc.Arbitrary<readonly Host[]> =>
  fc
    .oneof(
      fc.array(hostOf(bounds), { minLength: bounds.hosts[0], maxLength: bounds.hosts[1], size: 'max' }),
      // Equal hosts, which is what clusters are made of.
      fc
        .tuple(hostOf(bounds), fc.integer({ min: bounds.hosts[0], max: bounds.hosts[1] }))
        .map(([host, count]) => Array.from({ length: count }, () => host)),
    )
    .map((hosts) => hosts.map((host, i) => buildHost(i, host)));

/** As a VM asked for by somebody: its id is given when it is asked for. */
export type RandomVm = Omit<Vm, 'id' | 'name'>;

/** One VM in three asks for anything; the others, for little, so that many find a place. */
export const vmOf = (bounds: ClusterBounds): fc.Arbitrary<RandomVm> =>
  fc.oneof(
    { weight: 1, arbitrary: anyVmOf(bounds) },
    {
      weight: 2,
      arbitrary: fc
        .tuple(anyVmOf(bounds), fc.constantFrom('cpu', 'smt', 'pages', 'device', 'rule', 'cells'))
        .map(([random, theme]) => calmed(random, theme)),
    },
  );

/** Keeps one peculiarity. */
function calmed(random: RandomVm, theme: string): RandomVm {
  const { vcpus, memoryMib, cpuPolicy, ha, priority, oneNodeRequired } = random;
  const { smt, ioThreads, hugepageMib, devices, rules, preferredHosts, guestNuma, cells } = random;
  return {
    ...plainVm(''),
    ...{ vcpus, memoryMib: Math.min(2048, memoryMib), ha, priority },
    ...(theme === 'cpu' ? { cpuPolicy, ioThreads, oneNodeRequired } : {}),
    ...(theme === 'smt' ? { cpuPolicy: cpuPolicy === 'shared' ? 'dedicated' : cpuPolicy, smt } : {}),
    ...(theme === 'pages' ? { cpuPolicy, hugepageMib } : {}),
    ...(theme === 'device' ? { devices: devices.slice(0, 1) } : {}),
    ...(theme === 'rule' ? { rules, preferredHosts } : {}),
    ...(theme === 'cells' ? { cpuPolicy, guestNuma, cells, memoryMib } : {}),
  };
}

const anyVmOf = (bounds: ClusterBounds): fc.Arbitrary<RandomVm> =>
  fc
    .record({
      vcpus: fc.integer({ min: 1, max: bounds.vcpusMax }),
      gib: fc.integer({ min: 1, max: 4 }),
      cpuPolicy: fc.constantFrom(
        'shared' as const,
        'shared' as const,
        'dedicated' as const,
        'dedicated' as const,
        'realtime' as const,
      ),
      smt: often<Vm['smt']>('prefer', fc.constantFrom('isolate' as const, 'require' as const), 1),
      ioThreads: fc.constantFrom(0, 0, 1),
      guestNuma: fc.constantFrom('none' as const, 'none' as const, 'automatic' as const, 'explicit' as const),
      firstCell: fc.double({ min: 0.2, max: 0.8, noNaN: true }),
      oneNodeRequired: often(false, fc.constant(true), 3),
      hugepageMib: often<Vm['hugepageMib']>(0, fc.constantFrom(2 as const, 1024 as const), 2),
      devices: often<Vm['devices']>(
        [],
        fc.array(
          fc.record({
            class: fc.constantFrom(...CLASSES),
            count: fc.constantFrom(1, 1, 2),
            numa: fc.constantFrom('required' as const, 'preferred' as const, 'none' as const),
          }),
          { minLength: 1, maxLength: 2 },
        ),
        2,
      ),
      zone: often('', fc.constantFrom('a', 'b'), 5),
      network: often(-1, fc.integer({ min: 0, max: 1 }), 4),
      rules: often<Vm['rules']>(
        [],
        fc.array(
          fc.record({
            group: fc.constantFrom(...GROUPS),
            kind: fc.constantFrom('apart' as const, 'apart' as const, 'together' as const, 'pair' as const),
            soft: often(false, fc.constant(true), 2),
          }),
          { minLength: 1, maxLength: 2 },
        ),
        1,
      ),
      pinned: often(-1, fc.integer({ min: 0, max: bounds.hosts[1] - 1 }), 12),
      preferred: often<readonly number[]>([], fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 2 }), 4),
      ha: fc.constantFrom(true, true, false),
      priority: fc.constantFrom(0, 0, 500),
    })
    .map(({ gib, firstCell, zone, network, pinned, preferred, ...rest }): RandomVm => {
      const memoryMib = 1024 * gib;
      const first = Math.max(1, Math.round(firstCell * rest.vcpus));
      const firstGib = Math.max(1, Math.round(firstCell * gib));
      const twoCells = rest.guestNuma === 'explicit' && first < rest.vcpus && firstGib < gib;
      return {
        ...plainVm(''),
        ...rest,
        memoryMib,
        guestNuma: rest.guestNuma === 'explicit' && !twoCells ? 'none' : rest.guestNuma,
        cells: twoCells
          ? [
              { vcpus: first, memoryMib: 1024 * firstGib },
              { vcpus: rest.vcpus - first, memoryMib: memoryMib - 1024 * firstGib },
            ]
          : [],
        oneNodeRequired: rest.oneNodeRequired && !twoCells,
        hostSelector: zone === '' ? {} : { zone },
        networks:
          network < 0 ? [] : [{ id: (NETWORKS[network] ?? '') as string as NetworkId, name: NETWORKS[network] ?? '' }],
        pinnedHost: pinned < 0 ? '' : `h${pinned}`,
        preferredHosts: preferred.map((host) => `h${host}`),
      };
    });

export const policyOf = (bounds: ClusterBounds): fc.Arbitrary<PlacementPolicy> =>
  fc.record({
    hostReservedMemoryMib: fc.constant(0),
    vmOverheadMib: fc.constantFrom(0, 0, 1024),
    vcpuOvercommit: fc.constantFrom(1, 1.5, 2),
    prefer: fc.constantFrom('pack' as const, 'spread' as const),
    survive: fc.constantFrom(...bounds.survive),
  });

export const named = (random: RandomVm, name: string): Vm => ({ ...random, id: name as VmId, name });
