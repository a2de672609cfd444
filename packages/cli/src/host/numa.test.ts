// SPDX-License-Identifier: Apache-2.0
import { Host } from '@busbar/proto/gen/busbar/v1/host';
import { SmtPolicy, Vm } from '@busbar/proto/gen/busbar/v1/vm';
import { expect, test } from 'vitest';
import { drawNuma, numaMap } from './numa.ts';

const GIB = 1024n ** 3n;
const range = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

const host = Host.fromPartial({
  spec: { reservedCpus: [0, 16] },
  status: {
    inventory: {
      isolatedCpus: [4, 5, 6, 7, 20, 21, 22, 23],
      numaNodes: [0, 1].map((id) => ({
        id,
        cpus: [...range(id * 8, 8), ...range(16 + id * 8, 8)],
        smtSiblingSets: range(id * 8, 8).map((cpu) => `${cpu},${cpu + 16}`),
        memoryBytes: 64n * GIB,
        hugepages: id === 0 ? [{ pageSizeBytes: GIB, total: 16n, free: 10n }] : [],
      })),
    },
  },
});

const vms = [
  Vm.fromPartial({
    meta: { name: 'relay-1' },
    spec: { cpu: { smtPolicy: SmtPolicy.ISOLATE } },
    status: {
      placement: {
        host: 'host1',
        cells: [{ numaNode: 0, vcpus: 2, cpus: [4, 5], memoryBytes: 6n * GIB }],
        emulatorCpus: [1],
        ioThreadCpus: [17],
      },
    },
  }),
  Vm.fromPartial({
    meta: { name: 'hmi' },
    status: { placement: { host: 'host1', cells: [{ numaNode: 1, vcpus: 4, cpus: [], memoryBytes: 8n * GIB }] } },
  }),
];

test('a map shows which CPU belongs to whom, within 100 columns', () => {
  const text = drawNuma('host1', numaMap(host, vms), 100);
  expect(text).toMatchInlineSnapshot(`
    "NUMA node 0: 6GiB of 64GiB given to VMs; pages of 1GiB: 6 of 16 used
      CPU 0-7,16-23
        #a.. AAii #a.. __ii

    NUMA node 1: 8GiB of 64GiB given to VMs
      CPU 8-15,24-31
        .... .... .... ....
      4 shared vCPUs on 16 CPUs: hmi (4)

    A  relay-1: vCPUs on 4-5; a emulator and I/O threads on 1,17
    .  shared, or free
    i  isolated, free: for realtime VMs
    #  reserved for the host
    _  kept empty beside a vCPU that has its core alone
    "
  `);
  for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
});

test('a host that told nothing yet says so', () => {
  expect(drawNuma('host9', numaMap(Host.fromPartial({}), []), 100)).toBe(
    'host host9 has not told its NUMA nodes yet\n',
  );
});
