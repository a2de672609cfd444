// SPDX-License-Identifier: Apache-2.0
import type { BusbarError, FieldViolation } from '@busbar/core/errors';
import { VmRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import {
  CpuPolicy,
  DeviceNumaPolicy,
  Hugepages,
  NumaTopology,
  PlacementRuleKind,
  SmtPolicy,
  VmSpec,
} from '@busbar/proto/gen/busbar/v1/vm';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { parse } from '../api/validation.ts';
import { hardwareDigest } from './domain.ts';
import { vmSpecSchema, withDefaults } from './spec.ts';

const MIB = 1024n ** 2n;
const GIB = 1024n * MIB;
const holder = z.object({ spec: vmSpecSchema });
type Given = Parameters<typeof VmSpec.fromPartial>[0];
const specOf = (more: Given = {}) => VmSpec.fromPartial({ cpu: { vcpus: 4 }, memoryBytes: 4n * GIB, ...more });

function violations(spec: VmSpec): readonly FieldViolation[] {
  try {
    parse(holder, { spec });
  } catch (error) {
    expect(error).toMatchObject({ kind: 'invalid', reason: 'INVALID_REQUEST' });
    return (error as BusbarError).fields;
  }
  return [];
}

const { DEDICATED, REALTIME, SHARED } = CpuPolicy;
const rule = (kind: PlacementRuleKind, soft = false, group = 'g') => ({ group, kind, soft });

describe('needs of a VM', () => {
  it.each<[string, Given]>([
    ['nothing', {}],
    ['dedicated CPUs', { cpu: { vcpus: 4, policy: DEDICATED, smtPolicy: SmtPolicy.ISOLATE } }],
    ['whole cores for an odd number', { cpu: { vcpus: 3, policy: DEDICATED, smtPolicy: SmtPolicy.REQUIRE } }],
    ['realtime', { cpu: { vcpus: 4, policy: REALTIME, realtimePriority: 99, ioThreads: 16 } }],
    ['realtime with the default priority', { cpu: { vcpus: 4, policy: REALTIME } }],
    ['pages', { hugepages: Hugepages.HUGEPAGES_1G, memoryLocked: true }],
    ['one cell on one node', { numa: { cells: [{ vcpus: 4, memoryBytes: 4n * GIB }], oneNodeRequired: true } }],
    [
      'unequal cells',
      {
        numa: {
          topology: NumaTopology.EXPLICIT,
          cells: [
            { vcpus: 1, memoryBytes: GIB },
            { vcpus: 3, memoryBytes: 3n * GIB },
          ],
        },
      },
    ],
    [
      '16 cells',
      {
        cpu: { vcpus: 16 },
        numa: { cells: Array.from({ length: 16 }, () => ({ vcpus: 1, memoryBytes: 256n * MIB })) },
      },
    ],
    ['16 devices', { devices: [{ class: 'a', count: 15 }, { class: 'b' }] }],
    ['rules', { placement: { rules: [rule(PlacementRuleKind.TOGETHER), rule(PlacementRuleKind.APART, true)] } }],
    ['rule and short form', { placement: { rules: [rule(PlacementRuleKind.APART)], antiAffinityGroup: 'g' } }],
  ])('takes %s', (_name, more) => {
    expect(violations(specOf(more))).toEqual([]);
  });

  it.each<[Given, string, string, string]>([
    [
      { cpu: { vcpus: 4, realtimePriority: 1 } },
      'spec.cpu.realtimePriority',
      'is 1',
      '0, or 1 to 99 with cpu.policy REALTIME',
    ],
    [{ cpu: { vcpus: 4, policy: REALTIME, realtimePriority: 100 } }, 'spec.cpu.realtimePriority', 'is 100', '0 to 99'],
    [{ cpu: { vcpus: 4, ioThreads: 17 } }, 'spec.cpu.ioThreads', 'is 17', '0 to 16'],
    [
      { cpu: { vcpus: 4, policy: SHARED, smtPolicy: SmtPolicy.ISOLATE } },
      'spec.cpu.smtPolicy',
      'is "SMT_POLICY_ISOLATE"',
      'PREFER, or another with cpu.policy DEDICATED or REALTIME',
    ],
    [
      { cpu: { vcpus: 4, policy: 'CPU_POLICY_BEST' as CpuPolicy } },
      'spec.cpu.policy',
      'is "CPU_POLICY_BEST"',
      'one of CPU_POLICY_SHARED, CPU_POLICY_DEDICATED, CPU_POLICY_REALTIME',
    ],
    [
      { memoryBytes: GIB + 2n * MIB, hugepages: Hugepages.HUGEPAGES_1G },
      'spec.memoryBytes',
      'is 1075838976',
      'a multiple of 1024 MiB, the page size that hugepages says',
    ],
    [
      { memoryBytes: GIB + MIB, hugepages: Hugepages.HUGEPAGES_2M },
      'spec.memoryBytes',
      'is 1074790400',
      'a multiple of 2 MiB, the page size that hugepages says',
    ],
    [
      { numa: { topology: NumaTopology.EXPLICIT } },
      'spec.numa.cells',
      'is []',
      '1 to 16 cells with numa.topology EXPLICIT',
    ],
    [
      { numa: { topology: NumaTopology.AUTOMATIC, cells: [{ vcpus: 4, memoryBytes: 4n * GIB }] } },
      'spec.numa.cells',
      'is [{',
      'no cells, or numa.topology EXPLICIT',
    ],
    [
      { numa: { cells: [{ vcpus: 3, memoryBytes: 4n * GIB }] } },
      'spec.numa.cells',
      'is [{',
      "cells whose vcpus add up to 4, the VM's (they add up to 3)",
    ],
    [
      { numa: { cells: [{ vcpus: 4, memoryBytes: GIB }] } },
      'spec.numa.cells',
      'is [{',
      "cells whose memoryBytes add up to 4294967296, the VM's (they add up to 1073741824)",
    ],
    [
      { numa: { cells: [{ vcpus: 4, memoryBytes: 4n * GIB + 1n }] } },
      'spec.numa.cells[0].memoryBytes',
      'is 4294967297',
      'a multiple of 1 MiB',
    ],
    [
      { cpu: { vcpus: 17 }, numa: { cells: Array.from({ length: 17 }, () => ({ vcpus: 1, memoryBytes: MIB })) } },
      'spec.numa.cells',
      'is [{',
      '1 to 16 cells',
    ],
    [
      {
        numa: { oneNodeRequired: true, cells: Array.from({ length: 2 }, () => ({ vcpus: 2, memoryBytes: 2n * GIB })) },
      },
      'spec.numa.oneNodeRequired',
      'is true',
      'false, or one cell: each of the 2 is on a NUMA node of its own',
    ],
    [{ devices: [{ class: 'NIC' }] }, 'spec.devices[0].class', 'is "NIC"', '1 to 63 lower-case letters'],
    [
      { devices: [{ class: 'a' }, { class: 'a' }] },
      'spec.devices[1].class',
      'is "a"',
      'each class once, with its count',
    ],
    [
      { devices: [{ class: 'a', count: 16 }, { class: 'b' }] },
      'spec.devices',
      'is [{',
      'at most 16 devices in all (they are 17)',
    ],
    [
      { placement: { rules: [{ group: 'g' }] } },
      'spec.placement.rules[0].kind',
      'is "PLACEMENT_RULE_KIND_UNSPECIFIED"',
      'one of TOGETHER, APART, PAIR',
    ],
    [
      { placement: { rules: [rule(PlacementRuleKind.PAIR, false, '')] } },
      'spec.placement.rules[0].group',
      'is ""',
      "1 to 63 letters, digits, '-', '_', '.'",
    ],
    [
      { placement: { rules: [rule(PlacementRuleKind.PAIR), rule(PlacementRuleKind.PAIR, true)] } },
      'spec.placement.rules[1].group',
      'is "g"',
      'each group and kind once',
    ],
    [
      { placement: { rules: [rule(PlacementRuleKind.PAIR), rule(PlacementRuleKind.TOGETHER)] } },
      'spec.placement.rules[0].kind',
      'is "PLACEMENT_RULE_KIND_PAIR"',
      'TOGETHER alone, or soft: "g" has a hard rule TOGETHER',
    ],
    [
      { placement: { rules: [rule(PlacementRuleKind.TOGETHER)], antiAffinityGroup: 'g' } },
      'spec.placement.antiAffinityGroup',
      'is "g"',
      'another group: "g" has a hard rule TOGETHER',
    ],
  ])('case %#: field, value and what would be right', (more, field, problem, expected) => {
    const [first] = violations(specOf(more));
    expect(first?.field).toBe(field);
    expect(first?.problem).toContain(problem);
    expect(first?.expected).toContain(expected);
  });

  it('echoes its defaults', () => {
    expect(withDefaults(specOf(), 'v')).toMatchObject({
      cpu: { policy: SHARED, smtPolicy: SmtPolicy.PREFER, realtimePriority: 0, ioThreads: 0 },
      hugepages: Hugepages.HUGEPAGES_NONE,
      memoryLocked: false,
      numa: { topology: NumaTopology.NONE, cells: [], oneNodeRequired: false },
      devices: [],
      placement: { rules: [] },
    });
    const realtime = specOf({
      cpu: { vcpus: 4, policy: REALTIME },
      numa: { cells: [{ vcpus: 4, memoryBytes: 4n * GIB }] },
      devices: [{ class: 'process-bus-nic' }],
    });
    const once = withDefaults(realtime, 'v');
    expect(once).toMatchObject({
      cpu: { realtimePriority: 1 },
      numa: { topology: NumaTopology.EXPLICIT },
      devices: [{ class: 'process-bus-nic', count: 1, numaPolicy: DeviceNumaPolicy.PREFERRED }],
    });
    expect(violations(once)).toEqual([]);
    expect(withDefaults(once, 'v')).toEqual(once);
  });

  it('of a VM that runs since before they existed change no hardware', () => {
    const old = VmSpec.fromPartial({ cpu: { vcpus: 4 }, memoryBytes: 4n * GIB });
    const record = (spec: VmSpec) => VmRecord.fromPartial({ meta: { id: 'v' }, spec });
    const before = hardwareDigest(record(old));
    const kept = withDefaults(old, 'v');
    const only = { ...old, cpu: kept.cpu, hugepages: kept.hugepages, numa: kept.numa, devices: kept.devices };
    expect(hardwareDigest(record(only))).toBe(before);
    expect(hardwareDigest(record({ ...only, hugepages: Hugepages.HUGEPAGES_2M }))).not.toBe(before);
    expect(hardwareDigest(record(VmSpec.fromPartial({ ...old, cpu: { vcpus: 4, policy: DEDICATED } })))).not.toBe(
      before,
    );
    expect(hardwareDigest(record(VmSpec.fromPartial({ ...old, numa: { oneNodeRequired: true } })))).not.toBe(before);
  });
});
