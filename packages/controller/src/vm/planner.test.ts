// SPDX-License-Identifier: Apache-2.0
import { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { CpuPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { DEFAULT_POLICY } from '@busbar/scheduler/model';
import { createPlanner } from '@busbar/scheduler/planner';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';
import { presentPlacement } from './placed.ts';
import { snapshotOf } from './placement.ts';
import { KeptPlanner } from './planner.ts';
import { requestOf } from './request.ts';

/** Goal: the planner that is kept says what one that is made anew would, whatever happened in between. host1 has 8 CPUs. */
const GIB = 1024n ** 3n;
const always = () => true;
let rig: Rig;
let kept: KeptPlanner;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
  kept = new KeptPlanner(rig.view, DEFAULT_POLICY);
});
afterEach(() => rig.stop());

async function write(...writes: (ReturnType<typeof putRecord> | { kind: 'delete'; key: string })[]): Promise<void> {
  const result = await rig.run(rig.api.store.txn({ compare: [], writes }));
  await rig.run(rig.view.waitFor(result.revision));
}
const vm = (id: string, vcpus: number) =>
  VmRecord.fromPartial({
    meta: { id, name: id },
    spec: { cpu: { vcpus, policy: CpuPolicy.DEDICATED }, memoryBytes: GIB },
  });
const off = VmStatusRecord.fromPartial({ phase: VmPhase.STOPPED });
const on = (cpus: number[]) =>
  VmStatusRecord.fromPartial({
    phase: VmPhase.RUNNING,
    host: 'host1',
    epoch: 1n,
    placement: { host: 'host1', cells: [{ numaNode: 0, vcpus: cpus.length, cpus, memoryBytes: GIB }] },
  });

/** How many more CPUs a VM could have for itself, by the kept planner; the one that is made anew must agree. */
function free(underWay = 0): number {
  const most = (planner: ReturnType<typeof createPlanner>) => {
    for (let vcpus = 8; vcpus > 0; vcpus--)
      if (planner.decide(requestOf(vm('asked', vcpus), rig.view)).ok) return vcpus;
    return 0;
  };
  const found = most(kept.current());
  expect(most(createPlanner(snapshotOf(rig.view, DEFAULT_POLICY))) - underWay).toBe(found);
  return found;
}

it('follows the view: VMs that start, change, end and go', async () => {
  expect(free()).toBe(8);
  await write(putRecord('vm', 'a', vm('a', 2)), putRecord('vm-status', 'a', on([0, 1])));
  expect(free()).toBe(6);
  await write(putRecord('vm', 'b', vm('b', 3)), putRecord('vm-status', 'b', on([5, 6, 7])));
  await write(putRecord('vm-status', 'a', on([0, 1, 2])));
  expect(free()).toBe(2);
  await write(putRecord('vm-status', 'a', off));
  expect(free()).toBe(5);
  await write({ kind: 'delete', key: putRecord('vm', 'b', vm('b', 3)).key });
  expect(free()).toBe(8);
});

it('is made anew when a host changes', async () => {
  await write(putRecord('vm', 'a', vm('a', 2)), putRecord('vm-status', 'a', on([0, 1])));
  expect(free()).toBe(6);
  const status = rig.view.tables['host-status'].get('host1')?.record;
  if (status?.inventory?.cpu === undefined) throw new Error('no host');
  const cpu = { ...status.inventory.cpu, onlineCpus: 4 };
  await write(putRecord('host-status', 'host1', { ...status, inventory: { ...status.inventory, cpu } }));
  expect(free()).toBe(2);
  expect(kept.current(() => false).decide(requestOf(vm('asked', 1), rig.view)).ok).toBe(false);
  expect(free()).toBe(2);
});

it('counts what may have been written until the view tells', async () => {
  await write(putRecord('vm', 'a', vm('a', 2)), putRecord('vm-status', 'a', off));
  await write(putRecord('vm', 'b', vm('b', 3)), putRecord('vm-status', 'b', off));
  const first = kept.place('a', always);
  const second = kept.place('b', always);
  if (!first.ok || !second.ok) throw new Error('no room');
  expect(free(5)).toBe(3);
  // Decided again for the same VM, it is counted once.
  expect(kept.place('a', always).ok).toBe(true);
  expect(free(5)).toBe(3);
  // It certainly was not written.
  kept.forget('b');
  expect(free(2)).toBe(6);
  // A host that changes does not make it forget.
  const host = rig.view.tables.host.get('host1')?.record;
  if (host?.meta === undefined) throw new Error('no host');
  await write(putRecord('host', 'host1', { ...host, meta: { ...host.meta, labels: { rack: 'a' } } }));
  expect(free(2)).toBe(6);
  await write(putRecord('vm-status', 'a', { ...on([]), placement: presentPlacement(first.value.placement) }));
  expect(free()).toBe(6);
  await write(putRecord('vm-status', 'a', off));
  expect(free()).toBe(8);
});
