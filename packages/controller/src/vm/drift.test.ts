// SPDX-License-Identifier: Apache-2.0
import { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import { ObservedPlacement, Placement } from '@busbar/proto/gen/busbar/v1/vm';
import { describe, expect, it } from 'vitest';
import { boundedObservation, driftOf, sameObservation } from './drift.ts';

const decided = Placement.fromPartial({
  host: 'host1',
  cells: [
    { numaNode: 1, vcpus: 2, cpus: [9, 8] },
    { numaNode: 0, vcpus: 1, cpus: [4] },
  ],
  emulatorCpus: [2],
  ioThreadCpus: [3],
  devices: [{ class: 'nic', address: '0000:3b:00.1', numaNode: 1 }],
});
const asDecided = {
  vcpuCpus: ['9', '8', '4'],
  emulatorCpus: '2',
  ioThreadCpus: ['3'],
  numaNodes: [0, 1],
  realtimePriority: 50,
  devices: ['0000:3b:00.1'],
};
const observed = (more: Partial<typeof asDecided> = {}) => ObservedPlacement.fromPartial({ ...asDecided, ...more });

describe('drift', () => {
  it.each<[string, Partial<typeof asDecided>, string]>([
    ['none', {}, ''],
    ['a vCPU that was pinned anew', { vcpuCpus: ['9', '0-15', '4'] }, 'vCPU 1 on CPUs 0-15 instead of 8'],
    [
      'a pin that is gone',
      { vcpuCpus: [] },
      'vCPU 0 on CPUs (all) instead of 9; vCPU 1 on CPUs (all) instead of 8; vCPU 2 on CPUs (all) instead of 4',
    ],
    ['an emulator that floats', { emulatorCpus: '' }, 'emulator on CPUs (all) instead of 2'],
    ['an I/O thread elsewhere', { ioThreadCpus: ['4'] }, 'I/O thread 1 on CPUs 4 instead of 3'],
    ['memory anywhere', { numaNodes: [] }, 'memory on NUMA nodes (all) instead of 0-1'],
    ['the normal scheduler', { realtimePriority: 0 }, 'vCPUs without FIFO priority'],
    ['a device that is missing', { devices: [] }, 'devices (none) instead of 0000:3b:00.1'],
  ])('%s', (_what, more, expected) => {
    expect(driftOf(decided, observed(more), undefined)).toBe(expected);
  });

  it('is cut short when everything differs', () => {
    const text = driftOf(decided, ObservedPlacement.fromPartial({}), undefined);
    expect(text).toMatch(/^vCPU 0 .*; and 4 more$/);
  });

  it('is not seen where nothing was decided or nothing is known', () => {
    expect(driftOf(undefined, observed(), undefined)).toBe('');
    expect(driftOf(decided, undefined, undefined)).toBe('');
  });

  it('of a pretended topology: CPUs that exist, and nothing that does not', () => {
    const mapped = observed({
      vcpuCpus: ['6', '1', '1'],
      emulatorCpus: '1',
      ioThreadCpus: ['6'],
      numaNodes: [],
      realtimePriority: 0,
    });
    const lab = HostInventory.fromPartial({ pretendedTopology: { realCpus: [1, 6] } });
    expect(driftOf(decided, mapped, lab)).toBe('');
    expect(driftOf(decided, { ...mapped, emulatorCpus: '6' }, lab)).toBe('emulator on CPUs 6 instead of 1');
  });

  it('is also what the host has lost', () => {
    const whole = {
      numaNodes: [
        { id: 0, cpus: [0, 1, 2, 3, 4] },
        { id: 1, cpus: [8, 9] },
      ],
      pciDevices: [{ address: '0000:3b:00.1' }],
    };
    const seen = observed();
    const drift = (more: Partial<typeof whole>) =>
      driftOf(decided, seen, HostInventory.fromPartial({ ...whole, ...more }));
    expect(drift({})).toBe('');
    expect(
      drift({
        numaNodes: [
          { id: 0, cpus: [0, 1, 2, 4] },
          { id: 1, cpus: [9] },
        ],
      }),
    ).toBe('the host has lost CPUs 3,8');
    expect(drift({ numaNodes: [{ id: 0, cpus: [2, 3, 4, 8, 9] }] })).toBe('the host has lost NUMA node 1');
    expect(drift({ pciDevices: [] })).toBe('the host has lost device 0000:3b:00.1');
  });

  it('does not mind how a list is written', () => {
    const two = Placement.fromPartial({ ...decided, emulatorCpus: [3, 2] });
    expect(driftOf(two, observed({ emulatorCpus: '2,3' }), undefined)).toBe('');
  });
});

it('what a host says is bounded', () => {
  const flood = ObservedPlacement.fromPartial({
    vcpuCpus: Array.from({ length: 9_000 }, () => '1'.repeat(9_000)),
    emulatorCpus: '1'.repeat(9_000),
    devices: Array.from({ length: 9_000 }, () => 'x'.repeat(9_000)),
  });
  const kept = boundedObservation(flood);
  expect(ObservedPlacement.encode(kept).finish().length).toBeLessThan(80_000);
  expect(boundedObservation(observed())).toEqual(observed());
});

it('equal observations are equal', () => {
  expect(sameObservation(observed(), observed())).toBe(true);
  expect(sameObservation(undefined, undefined)).toBe(true);
  expect(sameObservation(observed(), undefined)).toBe(false);
  expect(sameObservation(observed(), observed({ numaNodes: [1] }))).toBe(false);
});
