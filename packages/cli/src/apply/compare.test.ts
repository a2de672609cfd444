// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import type { PlainObject } from '../manifest/check.ts';
import { vmSpec } from '../manifest/kinds.ts';
import { differences, overlay } from './compare.ts';

const GIB = 1024n ** 3n;
const rule = (group: string, kind: string, soft?: boolean) => ({
  group,
  kind: `PLACEMENT_RULE_KIND_${kind}`,
  ...(soft === undefined ? {} : { soft }),
});
const diff = (wanted: PlainObject, existing: unknown) =>
  differences(wanted, existing, vmSpec, 'spec', () => undefined).map(({ path }) => path);

describe('lists whose elements have no name', () => {
  const existing = { placement: { rules: [rule('a', 'PAIR', true), rule('b', 'APART', false)] } };

  test('are compared by place', () => {
    expect(diff({ placement: { rules: [rule('a', 'PAIR', true), rule('b', 'APART')] } }, existing)).toEqual([]);
    expect(diff({ placement: { rules: [rule('a', 'PAIR', true), rule('b', 'PAIR')] } }, existing)).toEqual([
      'spec.placement.rules[1].kind',
    ]);
    const cells = [1, 3].map((vcpus) => ({ vcpus, memoryBytes: GIB }));
    expect(diff({ numa: { cells } }, { numa: { topology: 'NUMA_TOPOLOGY_EXPLICIT', cells } })).toEqual([]);
    expect(diff({ numa: { cells: cells.toReversed() } }, { numa: { cells } })).toEqual([
      'spec.numa.cells[0].vcpus',
      'spec.numa.cells[1].vcpus',
    ]);
  });

  test('are replaced element by element: what is left out goes', () => {
    expect(diff({ placement: { rules: [rule('a', 'PAIR'), rule('b', 'APART')] } }, existing)).toEqual([
      'spec.placement.rules[0]',
    ]);
    const wanted = { placement: { rules: [rule('b', 'APART'), rule('a', 'PAIR')] } };
    expect(overlay(existing, wanted, vmSpec)).toEqual(wanted);
  });
});

test('what the cluster fills in is no difference', () => {
  const existing = {
    cpu: { vcpus: 2, policy: 'CPU_POLICY_REALTIME', smtPolicy: 'SMT_POLICY_PREFER', realtimePriority: 1 },
    hugepages: 'HUGEPAGES_NONE',
    devices: [{ class: 'nic', count: 1, numaPolicy: 'DEVICE_NUMA_POLICY_PREFERRED' }],
  };
  const wanted = {
    cpu: { vcpus: 2, policy: 'CPU_POLICY_REALTIME', realtimePriority: 0 },
    devices: [{ class: 'nic', count: 0 }],
  };
  expect(diff(wanted, existing)).toEqual([]);
  expect(diff({ ...wanted, hugepages: 'HUGEPAGES_2M' }, existing)).toEqual(['spec.hugepages']);
});
