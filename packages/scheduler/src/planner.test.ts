// SPDX-License-Identifier: Apache-2.0
/** Answers that were once wrong, each as small as it gets; rules in general are in scenarios/ and planner.property.test.ts. */
import type { HostId } from '@busbar/core/ids';
import { describe, expect, it } from 'vitest';
import type { Placement, Vm } from './model.ts';
import { createPlanner } from './planner.ts';
import { type HostShape, host, PLAIN, vm } from './testing/build.ts';
import { World } from './testing/oracle.ts';

const on = (shape: HostShape, policy = PLAIN) => createPlanner({ hosts: [host('h', shape)], placed: [], policy });

const holding = (cpus: readonly number[], rest: Partial<Placement> = {}): Placement => ({
  host: 'h' as HostId,
  cells: [{ numaNode: 0, vcpus: cpus.length, cpus, memoryMib: 1024 }],
  emulatorCpus: [],
  ioThreadCpus: [],
  devices: [],
  ...rest,
});

const own = (name: string, vcpus: number, rest: Partial<Vm> = {}) =>
  vm(name, { vcpus, cpuPolicy: 'dedicated', ...rest });
const nic = (address: string, numaNode: number) => ({ address, class: 'nic', numaNode });

describe('devices', () => {
  it('named twice are one', () => {
    const planner = on({ devices: [nic('d', 0), nic('d', 0)] });
    const request = (count: number) => ({ devices: [{ class: 'nic', count, numa: 'none' as const }] });
    expect(planner.place(vm('both', request(2))).ok).toBe(false);
    expect(planner.place(vm('one', request(1))).ok).toBe(true);
    expect(planner.place(vm('other', request(1))).ok).toBe(false);
  });

  it('that two VMs hold are not free when one of them goes', () => {
    const devices = [nic('d1', 0), nic('d2', 0)];
    const planner = on({ devices });
    for (const name of ['a', 'b'])
      planner.take({ vm: vm(name), placement: holding([], { devices: devices.slice(0, 1) }) });
    planner.release(vm('a').id);
    const placed = planner.place(vm('c', { devices: [{ class: 'nic', count: 1, numa: 'none' }] }));
    expect(placed.ok && placed.value.devices.map(({ address }) => address)).toEqual(['d2']);
  });

  it('of two requests of a spread VM are not counted twice', () => {
    const hosts = [host('h', { nodes: 2, cores: 2, devices: [nic('d1', 0), nic('d2', 1)] })];
    const planner = createPlanner({ hosts, placed: [], policy: PLAIN });
    const devices = [1, 2].map(() => ({ class: 'nic', count: 1, numa: 'required' as const }));
    const request = own('v', 3, { devices });
    const placed = planner.place(request);
    expect(placed.ok && new World(hosts, PLAIN).complaints(request, placed.value)).toEqual([]);
  });

  it('pull a spread VM to nodes that it would not need otherwise', () => {
    const nodes = 3;
    const hosts = [
      host('h', { nodes, cores: 2, memoryMib: 4096, devices: [nic('d1', 1), { ...nic('d2', 2), class: 'gpu' }] }),
    ];
    const planner = createPlanner({ hosts, placed: [], policy: PLAIN });
    const devices = ['nic', 'gpu'].map((name) => ({ class: name, count: 1, numa: 'required' as const }));
    const request = own('v', 3, { devices });
    const placed = planner.place(request);
    expect(placed.ok && new World(hosts, PLAIN).complaints(request, placed.value)).toEqual([]);
  });
});

describe('problems', () => {
  it('are gone with the VM that made them, and asking makes none', () => {
    const planner = on({ cores: 2 });
    planner.take({ vm: own('a', 1), placement: holding([0]) });
    planner.take({ vm: own('b', 1), placement: holding([0]) });
    const before = planner.problems();
    expect(before.map(({ vm: { name }, what }) => `${name}: ${what.join()}`)).toEqual(['b: CPU 0 is taken already']);
    planner.decide(own('a', 1));
    expect(planner.problems()).toEqual(before);
    planner.release(vm('a').id);
    expect(planner.problems()).toEqual([]);
  });

  it('name a core that is not whole, and a CPU of another NUMA node', () => {
    const planner = on({ nodes: 2, cores: 1, threads: 2 });
    planner.take({ vm: own('a', 1), placement: holding([0]) });
    expect(planner.take({ vm: own('b', 1, { smt: 'isolate' }), placement: holding([2]) })).toEqual([
      'CPU 0, of a core that must be whole, is taken already',
    ]);
    expect(planner.take({ vm: own('c', 1), placement: holding([1]) })).toEqual(['CPU 1 is on NUMA node 1, not 0']);
  });
});

describe('what is held elsewhere than the cells', () => {
  it.each([
    ['by an emulator', vm('a', { cpuPolicy: 'realtime' }), holding([], { emulatorCpus: [1] })],
    ['by a vCPU', own('a', 1), holding([1])],
  ])('%s is not free', (_, holder, placement) => {
    const planner = on({ nodes: 2, cores: 1 });
    // The node is ranked before, so that it must be judged anew.
    expect(planner.place(own('first', 1)).ok).toBe(true);
    expect(planner.decide(own('second', 1)).ok).toBe(true);
    planner.take({ vm: holder, placement });
    expect(planner.decide(own('second', 1)).ok).toBe(false);
  });
});

describe('with a policy for losses', () => {
  const policy = { ...PLAIN, survive: 'any-one-host' as const };

  it('a refusal of a VM with HA is none of the same VM without', () => {
    const planner = createPlanner({ hosts: [host('a'), host('b', { cores: 1 })], placed: [], policy });
    expect(planner.place(vm('ha', { vcpus: 4, ha: true })).ok).toBe(false);
    expect(planner.place(vm('plain', { vcpus: 4 })).ok).toBe(true);
  });

  it('a VM that comes onto the refuge of its opposite moves the refuge', () => {
    const planner = createPlanner({ hosts: [host('a'), host('b'), host('c')], placed: [], policy });
    const rules = [{ group: 'g', kind: 'apart' as const, soft: false }];
    planner.place(vm('one', { ha: true, rules }));
    const refuge = planner.drills().find(({ hosts }) => hosts.includes('a' as HostId))?.moves[0]?.placement
      .host as HostId;
    const there = { ...holding([]), cells: [{ numaNode: 0, vcpus: 1, cpus: [], memoryMib: 1024 }], host: refuge };
    planner.take({ vm: vm('two', { rules }), placement: there });
    const [move] = planner.drills().find(({ hosts }) => hosts.includes('a' as HostId))?.moves ?? [];
    expect(move?.placement.host).not.toBe(refuge);
  });
});

it('"spread" means hosts: the second VM goes to the second host, the third to the node that is idle', () => {
  const hosts = ['a', 'b'].map((id) => host(id, { nodes: 2 }));
  const planner = createPlanner({ hosts, placed: [], policy: { ...PLAIN, prefer: 'spread' } });
  const where = ['v1', 'v2', 'v3', 'v4'].map((name) => {
    const decided = planner.place(vm(name, { vcpus: 2 }));
    return decided.ok ? `${decided.value.host}/${decided.value.cells[0]?.numaNode}` : '';
  });
  expect(where).toEqual(['a/0', 'b/0', 'a/1', 'b/1']);
});
