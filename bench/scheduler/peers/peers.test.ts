// SPDX-License-Identifier: Apache-2.0
import { seededRandom } from '@busbar/core/random';
import { expect, test } from 'vitest';
import { oneCellShort, randomCase } from '../numa/cases.ts';
import { novaGuest, novaHost } from '../numa/translate.ts';
import { parsePlan, versionOf } from './debian.ts';
import { longestPrefix } from './ganeti/ganeti.ts';
import { allocateRequest, clusterText, multiAllocateRequest, uniformClusterText } from './ganeti/text.ts';

const HOST = { cpus: 64, memoryMib: 1000 };
const VM = { vcpus: 2, memoryMib: 100 };

test('a cluster for htools: five sections, free memory less what is placed, no over-commit', () => {
  const text = clusterText(2, HOST, [{ ...VM, host: 1 }], VM);
  expect(text).toBe(`default|00000000-0000-4000-8000-000000000001|preferred||

node0|1001|0|1001|102400000|102400000|64|M|00000000-0000-4000-8000-000000000001|100000||N|100000|0|1.0
node1|1001|0|901|102400000|102400000|64|N|00000000-0000-4000-8000-000000000001|100000||N|100000|0|1.0

placed0|100|1024|2|running|Y|node1||rbd||1|-|N


|100,2,1024,1,1,1|0,1,0,0,0,0;1000,64,102400000,16,8,12|rbd|1.0|100000
default|100,2,1024,1,1,1|0,1,0,0,0,0;1000,64,102400000,16,8,12|rbd|1.0|100000
`);
});

test('for hspace, the largest and the smallest size are the standard one', () => {
  expect(uniformClusterText(1, HOST, VM)).toContain(
    '\n|100,2,1024,1,1,1|100,2,1024,1,1,1;100,2,1024,1,1,1|rbd|1.0|100000\n',
  );
});

test('requests name what is asked for', () => {
  expect(JSON.parse(allocateRequest(VM)).request).toMatchObject({ type: 'allocate', memory: 100, vcpus: 2 });
  const { request } = JSON.parse(multiAllocateRequest([VM, VM]));
  expect(request.type).toBe('multi-allocate');
  expect(request.instances.map(({ name }: { name: string }) => name)).toEqual(['asked0', 'asked1']);
});

test('the longest prefix that is taken is found, whatever its length', async () => {
  for (const taken of [0, 1, 6, 7]) {
    const prefix = await longestPrefix(7, async (length) => (length > taken ? null : Array(length).fill(0)));
    expect(prefix).toHaveLength(taken);
  }
});

test("apt's plan says which packages are missing, in which version", () => {
  const plan = `Reading package lists...
Inst python3-nova (2:26.2.2-1~deb12u5 Debian-Security:12/oldstable-security [all])
Inst libre2-9 [1.0-1] (2.0-1 Debian:12.15/oldstable [amd64]) []
Conf python3-nova (2:26.2.2-1~deb12u5 Debian-Security:12/oldstable-security [all])
`;
  expect(parsePlan(plan)).toEqual(['libre2-9=2.0-1', 'python3-nova=2:26.2.2-1~deb12u5']);
  expect(versionOf(parsePlan(plan).join('\n'), 'python3-nova')).toBe('26.2.2-1~deb12u5');
});

test('Nova is told what is used of each node: CPUs, memory and pages of each size', () => {
  const { host, placed } = oneCellShort(2, 2);
  expect(novaHost(host, placed)).toEqual([
    {
      cpus: [0, 1, 2, 3, 4, 5, 6, 7],
      siblings: [[0], [1], [2], [3], [4], [5], [6], [7]],
      memory: 16384,
      usedCpus: [],
      usedMemory: 0,
      pages: [[4, 4194304, 0]],
    },
    {
      cpus: [8, 9, 10, 11, 12, 13, 14, 15],
      siblings: [[8], [9], [10], [11], [12], [13], [14], [15]],
      memory: 16384,
      usedCpus: [9, 10, 11, 12, 13, 14, 15],
      usedMemory: 1024,
      pages: [[4, 4194304, 262144]],
    },
  ]);
});

test('no random case has more on a node than the node has', () => {
  const random = seededRandom(3);
  for (let round = 0; round < 100; round++) {
    const { host, placed, asked } = randomCase(random);
    for (const { cpus, usedCpus, pages, siblings } of novaHost(host, placed)) {
      expect(new Set(usedCpus).size).toBe(usedCpus.length);
      expect(siblings.flat().toSorted((a, b) => a - b)).toEqual(cpus);
      for (const [, total, used] of pages) expect(used).toBeLessThanOrEqual(total);
    }
    expect(novaGuest(asked).cells.length).toBeGreaterThan(0);
  }
});
