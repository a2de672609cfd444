// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import { simInventory } from '../sim/topology.ts';
import { PretendTopology, pretended } from './pretend.ts';

const MIB = 1024n ** 2n;

test('a pretended topology replaces CPUs, NUMA nodes and memory, and nothing else', () => {
  const found = simInventory({ coresPerNumaNode: 2, memoryBytes: 1000n * MIB });
  const topology = PretendTopology.parse({
    numaNodes: [
      { cpus: '0-3,8', siblings: ['0,8'], memoryMib: 100, hugepages: [{ sizeMib: 2, pages: 7 }] },
      { cpus: '4-7' },
    ],
    isolatedCpus: '6-7',
  });
  const shown = pretended(found, topology, [0, 1]);
  expect(shown).toEqual({
    ...found,
    numaNodes: [
      {
        id: 0,
        cpus: [0, 1, 2, 3, 8],
        smtSiblingSets: ['0,8', '1', '2', '3'],
        memoryBytes: 100n * MIB,
        hugepages: [{ pageSizeBytes: 2n * MIB, total: 7n, free: 7n }],
        distances: [10, 21],
      },
      {
        id: 1,
        cpus: [4, 5, 6, 7],
        smtSiblingSets: ['4', '5', '6', '7'],
        memoryBytes: 500n * MIB,
        hugepages: [],
        distances: [21, 10],
      },
    ],
    isolatedCpus: [6, 7],
    memoryBytes: 600n * MIB,
    cpu: { ...found.cpu, onlineCpus: 9 },
    pretendedTopology: { realCpus: [0, 1] },
  });
});
