// SPDX-License-Identifier: Apache-2.0
/** Hosts and VMs that nobody would build on purpose: no exception, no wrong answer, and work that is bounded. It is counted, not timed. */
import { describe, expect, it } from 'vitest';
import { Ledger } from './capacity/ledger.ts';
import { topologyOf } from './capacity/topology.ts';
import { assignCells } from './fit/assign.ts';
import type { Room } from './fit/room.ts';
import { seatSpread } from './fit/spread.ts';
import type { Host, NumaNode, Vm } from './model.ts';
import { createPlanner } from './planner.ts';
import { shapeOf } from './shape/shape.ts';
import { host, PLAIN, vm } from './testing/build.ts';
import { World } from './testing/oracle.ts';

/** An empty cluster whose amounts count how often they are looked at. */
function counted(hosts: readonly Host[]): { readonly room: Room; readonly looks: () => number } {
  let looks = 0;
  const topology = topologyOf(hosts, PLAIN);
  const amounts = new Proxy(new Ledger(topology, PLAIN).free, {
    get: (target, key) => {
      looks++;
      const value = Reflect.get(target, key, target) as unknown;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  return { room: { topology, amounts }, looks: () => looks };
}

const shape = (request: Vm, room: Room) =>
  shapeOf(request, 0, {
    policy: PLAIN,
    deviceClasses: room.topology.deviceClasses,
    admits: () => new Uint8Array(room.topology.hosts.length).fill(1),
  });

const cells = (count: number, vcpus: number, memoryMib: number) => ({
  vcpus: count * vcpus,
  memoryMib: count * memoryMib,
  guestNuma: 'explicit' as const,
  cells: Array.from({ length: count }, () => ({ vcpus, memoryMib })),
});

const withNodes = (id: string, numaNodes: readonly Partial<NumaNode>[], rest: Partial<Host> = {}): Host =>
  host(id, {
    rest: {
      numaNodes: numaNodes.map((node, i) => ({
        id: i,
        cpus: [],
        smtSiblings: [],
        memoryMib: 0,
        hugepages: [],
        distances: [],
        ...node,
      })),
      ...rest,
    },
  });

describe('explicit cells', () => {
  it('that do not fit 16 nodes are refused without trying permutations', () => {
    // Seven nodes take any of the eight cells, nine take none: 8! × C(16,8) ways to be disappointed.
    const nodes = Array.from({ length: 16 }, (_, i) => ({
      cpus: Array.from({ length: i < 7 ? 4 : 1 }, (_, cpu) => 4 * i + cpu),
      memoryMib: 8192,
    }));
    const { room, looks } = counted([withNodes('h', nodes)]);
    const request = vm('v', { ...cells(8, 2, 1024), cpuPolicy: 'dedicated' });
    expect(seatSpread(room, shape(request, room), 0, PLAIN)).toBeNull();
    expect(looks()).toBeLessThan(16 * 8 * 20);
  });

  it('each of which fits one node more than the last are assigned', () => {
    const nodes = Array.from({ length: 16 }, (_, i) => ({
      cpus: Array.from({ length: i + 1 }, (_, cpu) => 16 * i + cpu),
      memoryMib: 8192,
    }));
    const { room, looks } = counted([withNodes('h', nodes)]);
    const sizes = Array.from({ length: 16 }, (_, i) => i + 1);
    const request = vm('v', {
      vcpus: sizes.reduce((sum, size) => sum + size, 0),
      memoryMib: 16 * 1024,
      cpuPolicy: 'dedicated',
      guestNuma: 'explicit',
      cells: sizes.map((vcpus) => ({ vcpus, memoryMib: 1024 })),
    });
    const found = assignCells(room, shape(request, room).cells, 0);
    expect(found).toEqual(sizes.map((_, i) => i));
    expect(looks()).toBeLessThan(16 * 16 * 20);
  });

  it('with more requests for devices than can be tried one by one are refused', () => {
    const nodes = Array.from({ length: 16 }, (_, i) => ({ cpus: [2 * i, 2 * i + 1], memoryMib: 4096 }));
    const devices = Array.from({ length: 16 }, (_, i) => ({ address: `d${i}`, class: `c${i % 8}`, numaNode: 0 }));
    const { room, looks } = counted([withNodes('h', nodes, { devices })]);
    const request = vm('v', {
      ...cells(8, 1, 1024),
      devices: Array.from({ length: 8 }, (_, i) => ({
        class: `c${i}`,
        count: i === 7 ? 3 : 1,
        numa: 'required' as const,
      })),
    });
    expect(seatSpread(room, shape(request, room), 0, PLAIN)).toBeNull();
    expect(looks()).toBeLessThan(1000 * 16 * 8 * 20);
  });

  it.each([
    ['8 × 8', 8, 8, 1 as const],
    ['2 × 32 SMT', 2, 32, 2 as const],
    ['16 × 8 SMT', 16, 8, 2 as const],
  ])('on a host of %s fill it', (_, nodes, cores, threads) => {
    const hosts = [host('h', { nodes, cores, threads, memoryMib: 65_536 })];
    const planner = createPlanner({ hosts, placed: [], policy: PLAIN });
    const world = new World(hosts, PLAIN);
    const big = vm('all', { ...cells(nodes, cores * threads, 65_536), cpuPolicy: 'dedicated' });
    const placed = planner.place(big);
    expect(placed.ok && world.complaints(big, placed.value)).toEqual([]);
    expect(planner.place(vm('more')).ok).toBe(false);
  });
});

describe('odd hosts', () => {
  const odd: Record<string, readonly Host[]> = {
    'none at all': [],
    'no NUMA node': [withNodes('h', [])],
    'no NUMA node beside one with two': [withNodes('a', []), host('b', { nodes: 2, cores: 2, memoryMib: 2048 })],
    'a node without CPUs': [withNodes('h', [{ cpus: [0, 1, 2, 3], memoryMib: 2048 }, { memoryMib: 8192 }])],
    'a node without memory': [withNodes('h', [{ cpus: [0, 1, 2, 3] }, { cpus: [4, 5], memoryMib: 8192 }])],
    'no CPU anywhere': [withNodes('h', [{ memoryMib: 4096 }, { memoryMib: 4096 }])],
    'only reserved CPUs': [host('h', { cores: 2, reservedCpus: [0, 1] })],
    'only isolated CPUs': [host('h', { cores: 4, isolatedCores: 4 })],
    'more pages than memory': [
      withNodes('h', [{ cpus: [0], memoryMib: 1024, hugepages: [{ sizeMib: 1024, pages: 9 }] }]),
    ],
    asymmetric: [
      withNodes('h', [
        { cpus: [0, 1, 2, 3, 4, 5, 6, 7], memoryMib: 1024 },
        { cpus: [8], memoryMib: 16_384 },
        { cpus: [9, 10], smtSiblings: [[9, 10]], memoryMib: 2048 },
      ]),
    ],
    'performance and efficiency cores': [
      withNodes('h', [
        {
          cpus: [0, 1, 2, 3, 4, 5, 6, 7],
          smtSiblings: [
            [0, 1],
            [2, 3],
          ],
          memoryMib: 16_384,
        },
      ]),
    ],
    'four threads a core': [
      withNodes('h', [
        {
          cpus: [0, 1, 2, 3, 4, 5, 6, 7],
          smtSiblings: [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
          ],
          memoryMib: 8192,
        },
      ]),
    ],
    'CPUs that siblings name and nobody has': [
      withNodes('h', [{ cpus: [0], smtSiblings: [[0, 64]], memoryMib: 8192 }]),
    ],
    'a device named three times': [
      host('h', {
        nodes: 2,
        devices: [
          { address: 'd', class: 'nic', numaNode: 0 },
          { address: 'd', class: 'nic', numaNode: 0 },
          { address: 'd', class: 'gpu', numaNode: 1 },
        ],
      }),
    ],
    'a device on a node that is not there': [host('h', { devices: [{ address: 'd', class: 'nic', numaNode: 7 }] })],
    'distances of too few nodes': [
      withNodes('h', [
        { cpus: [0], memoryMib: 1024, distances: [10] },
        { cpus: [1], memoryMib: 1024 },
      ]),
    ],
  };
  const requests: readonly Vm[] = [
    vm('a'),
    vm('b', { vcpus: 2, cpuPolicy: 'dedicated' }),
    vm('c', { vcpus: 2, cpuPolicy: 'dedicated', smt: 'isolate' }),
    vm('d', { vcpus: 3, cpuPolicy: 'dedicated', smt: 'require' }),
    vm('e', { vcpus: 1, cpuPolicy: 'realtime', ioThreads: 1 }),
    vm('f', { vcpus: 4, memoryMib: 4096, guestNuma: 'automatic' }),
    vm('g', cells(2, 1, 1024)),
    vm('h', { hugepageMib: 1024 }),
    vm('i', { devices: [{ class: 'nic', count: 1, numa: 'required' }] }),
    vm('j', { devices: [{ class: 'nic', count: 2, numa: 'none' }] }),
    vm('k', { devices: [{ class: 'gpu', count: 1, numa: 'preferred' }] }),
    vm('huge memory', { memoryMib: 2 ** 40 }),
    vm('memory that wraps', { memoryMib: 2 ** 32 }),
    vm('huge vCPUs', { vcpus: 4_294_968 }),
    vm('huge cells', cells(2, 2 ** 22, 2 ** 33)),
    vm('more cells than nodes', cells(40, 1, 64)),
  ];

  it.each(Object.entries(odd))('%s', (_, hosts) => {
    for (const survive of ['off', 'any-one-host'] as const) {
      const policy = { ...PLAIN, survive };
      const planner = createPlanner({ hosts, placed: [], policy });
      const world = new World(hosts, policy);
      for (const request of requests) {
        const placed = planner.place(request);
        if (!placed.ok) {
          expect(placed.error.summary).not.toBe('');
          expect(planner.explain(request).every(({ refusals }) => refusals.every(({ reason }) => reason !== ''))).toBe(
            true,
          );
          continue;
        }
        expect(request.name).not.toMatch(/huge|wraps|more cells/);
        expect(world.complaints(request, placed.value), request.name).toEqual([]);
        world.put({ vm: request, placement: placed.value });
      }
      expect(planner.problems()).toEqual([]);
      for (const { moves } of planner.drills()) expect(moves).toEqual([]);
    }
  });
});

describe('5,000 hosts', () => {
  const hosts = Array.from({ length: 5000 }, (_, i) =>
    host(`h${String(i).padStart(4, '0')}`, { cores: 2, memoryMib: 4096 }),
  );

  it('take VMs, and say in one short text why they do not', () => {
    const planner = createPlanner({ hosts, placed: [], policy: PLAIN });
    for (let i = 0; i < 50; i++) expect(planner.place(vm(`v${i}`, { memoryMib: 2048 })).ok).toBe(true);
    const refused = planner.decide(vm('big', { memoryMib: 8192 }));
    expect(refused.ok ? '' : refused.error.summary).toBe(
      'memory refuses 5000 of 5000 hosts (h0000: needs 8192 MiB, 0 MiB free); cpu refuses 25 of 5000 hosts (h0000: needs 1 shared vCPUs, 0 free (2 CPUs × 1))',
    );
  });

  it('prove a loss without looking at all of them for each VM', () => {
    const policy = { ...PLAIN, survive: 'any-one-host' as const };
    const planner = createPlanner({ hosts, placed: [], policy });
    for (let i = 0; i < 20; i++) expect(planner.place(vm(`v${i}`, { memoryMib: 2048, ha: true })).ok).toBe(true);
    const busy = planner.drills().filter(({ moves }) => moves.length > 0);
    expect(busy.flatMap(({ moves }) => moves)).toHaveLength(20);
    expect(busy.every(({ homeless }) => homeless.length === 0)).toBe(true);
    expect(busy.every(({ hosts: lost, moves }) => moves.every(({ placement }) => !lost.includes(placement.host)))).toBe(
      true,
    );
  });
});
