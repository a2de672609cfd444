// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { VmId } from '@busbar/core/ids';
import { expect, test } from 'vitest';
import { hypervisorTimeout } from '../driver/refusals.ts';
import { ObservedPlacements } from './observed.ts';

const domains = (count: number, epoch = 1n) =>
  Array.from({ length: count }, (_, i) => ({ vmId: `vm${i}` as VmId, epoch }));
const xml = (cpu: number) => `<domain><vcpu>1</vcpu><cputune><vcpupin vcpu='0' cpuset='${cpu}'/></cputune></domain>`;

test('new domains are read at once, known ones after a while, a few with each listing', async () => {
  const clock = new VirtualClock();
  const observed = new ObservedPlacements(clock);
  let reads: VmId[] = [];
  const list = async (count: number, cpu = 3) => {
    reads = [];
    await observed.refresh(domains(count), async (vmId) => {
      reads.push(vmId);
      return xml(cpu);
    });
    return reads.length;
  };
  expect(await list(2)).toBe(2);
  expect(observed.of('vm1' as VmId, 1n)?.vcpuCpus).toEqual(['3']);
  expect(observed.of('vm1' as VmId, 2n)).toBeUndefined();
  expect(await list(2)).toBe(0);
  await clock.advance(4_999);
  expect(await list(3)).toBe(1);
  await clock.advance(1);
  expect(await list(3, 4)).toBe(2);
  expect(observed.of('vm1' as VmId, 1n)?.vcpuCpus).toEqual(['4']);
  // Many: in turn, those first that were not read for longest.
  const seen = new Set<VmId>();
  for (let i = 0; i < 4; i++) {
    expect(await list(50)).toBeLessThanOrEqual(16);
    for (const id of reads) seen.add(id);
  }
  expect(seen.size).toBe(47);
});

test('what cannot be read stays as it was; what is gone is not known', async () => {
  const clock = new VirtualClock();
  const observed = new ObservedPlacements(clock);
  await observed.refresh(domains(1), async () => xml(1));
  await clock.advance(10_000);
  await observed.refresh(domains(1), () => Promise.reject(hypervisorTimeout('xml', 5)));
  expect(observed.of('vm0' as VmId, 1n)?.vcpuCpus).toEqual(['1']);
  await observed.refresh(domains(1), async () => null);
  expect(observed.of('vm0' as VmId, 1n)).toBeUndefined();
  await observed.refresh(domains(1, 2n), async () => xml(2));
  expect(observed.of('vm0' as VmId, 1n)).toBeUndefined();
  expect(observed.of('vm0' as VmId, 2n)?.vcpuCpus).toEqual(['2']);
});
