// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import { HOST } from '../workload/flavour.ts';
import { streamOf } from '../workload/stream.ts';
import { bestFit, firstFit } from './fit.ts';
import { fragmentationGradient } from './fragmentation.ts';
import { pack } from './pool.ts';

const vm = (vcpus: number, memoryMib: number) => ({ vcpus, memoryMib, batch: 0 });
const SMALL = { cpus: 4, memoryMib: 4 };

test('first fit takes the first host with room, and none when there is none', () => {
  const place = firstFit(2, SMALL);
  expect([vm(3, 1), vm(2, 1), vm(1, 1), vm(3, 1)].map(place)).toEqual([0, 1, 0, -1]);
});

test('best fit takes the host with the least left over', () => {
  const place = bestFit(2, SMALL);
  expect([vm(2, 2), vm(3, 3), vm(1, 1)].map(place)).toEqual([0, 1, 1]);
});

test('the gradient keeps whole what another flavour needs', () => {
  // Both hosts have room for the small one; on host 0 it would take the last place of the big one.
  const stream = [vm(1, 1), vm(4, 4)];
  expect(stream.map(fragmentationGradient(2, SMALL, stream))).toEqual([0, 1]);
  expect([vm(1, 1), vm(1, 1), vm(4, 4)].map(fragmentationGradient(2, SMALL, stream))).toEqual([0, 0, 1]);
});

test('refusals do not end the stream', () => {
  expect(pack(firstFit(1, SMALL), [vm(3, 1), vm(2, 1), vm(1, 1)])).toEqual({
    first: 1,
    total: 2,
    vcpus: 4,
    memoryMib: 2,
  });
});

test('nobody gets past the volume bound', () => {
  const { arrivals, bound } = streamOf('skew', 1, 20, []);
  for (const place of [firstFit(20, HOST), bestFit(20, HOST), fragmentationGradient(20, HOST, arrivals)]) {
    expect(pack(place, arrivals).first).toBeLessThanOrEqual(bound);
  }
});
