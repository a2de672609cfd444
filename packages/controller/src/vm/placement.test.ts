// SPDX-License-Identifier: Apache-2.0
import type { HostId } from '@busbar/core/ids';
import { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { Host as HostMessage, HostState } from '@busbar/proto/gen/busbar/v1/host';
import {
  CpuPolicy,
  type CreateVmResponse,
  DeviceNumaPolicy,
  Hugepages,
  NumaTopology,
  Placement,
  PlacementRuleKind,
  RunPolicy,
  SmtPolicy,
  VmPhase,
  VmSpec,
} from '@busbar/proto/gen/busbar/v1/vm';
import { DEFAULT_POLICY, type Host, NO_DOMAINS } from '@busbar/scheduler/model';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NEW_HOST_SPEC } from '../host/spec.ts';
import { putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';
import { presentPlacement, restorePlacement } from './placed.ts';
import { snapshotOf } from './placement.ts';
import { requestOf } from './request.ts';

const MIB = 1024n ** 2n;
const GIB = 1024n * MIB;

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

async function put(...writes: ReturnType<typeof putRecord>[]): Promise<void> {
  const result = await rig.run(rig.api.store.txn({ compare: [], writes }));
  await rig.run(rig.view.waitFor(result.revision));
}

/** host1 with what its agent found. */
async function inventory(more: Parameters<typeof HostMessage.fromPartial>[0]): Promise<void> {
  const { status } = HostMessage.fromPartial(more);
  const before = rig.view.tables['host-status'].get('host1')?.record;
  if (before?.inventory === undefined) throw new Error('no host');
  await put(putRecord('host-status', 'host1', { ...before, inventory: { ...before.inventory, ...status?.inventory } }));
}

const twoNodes = {
  status: {
    inventory: {
      bridges: [{ name: 'br-vm' }],
      isolatedCpus: [2, 3],
      numaNodes: [
        {
          id: 1,
          cpus: [6, 4, 5, 7],
          smtSiblingSets: ['4,5', '6-7', '8,9'],
          memoryBytes: 8n * GIB,
          hugepages: [
            { pageSizeBytes: 2n * MIB, total: 100n, free: 1n },
            { pageSizeBytes: 65_536n, total: 9n, free: 9n },
          ],
          distances: [21, 10],
        },
        { id: 0, cpus: [0, 1, 2, 3], smtSiblingSets: ['0', '1'], memoryBytes: 8n * GIB, distances: [10, 21] },
      ],
      pciDevices: [
        { address: '0000:3b:00.0', vendorProduct: '8086:1521', numaNode: 1, iommuGroup: 1 },
        { address: '0000:3b:00.1', vendorProduct: '8086:1521', numaNode: -1, iommuGroup: 2 },
        { address: '0000:3b:00.2', vendorProduct: '8086:1521', numaNode: 0, iommuGroup: -1 },
        { address: '0000:00:02.0', vendorProduct: '1234:5678', numaNode: 0, iommuGroup: 3 },
      ],
    },
  },
};

describe('a host, as placement sees it', () => {
  it('has what its agent found and what the user decided', async () => {
    await inventory(twoNodes);
    await rig.call('HostService', 'updateHost', {
      host: 'host1',
      labels: {},
      spec: {
        ...NEW_HOST_SPEC,
        reservedCpus: [0],
        reservedMemoryBytes: GIB,
        failureDomains: { rack: 'a', powerFeed: '', ringSegment: 'r1' },
        deviceClasses: [
          { name: 'gps', devices: ['0000:3b:00.1'] },
          { name: 'nic', devices: ['8086:1521'] },
        ],
      },
      updateMask: ['spec'],
      revision: 0n,
      validateOnly: false,
      requestId: '',
    });
    const [host] = snapshotOf(rig.view, DEFAULT_POLICY).hosts;
    expect(host).toEqual({
      id: 'host1',
      notSchedulable: '',
      labels: {},
      domains: { rack: 'a', powerFeed: '', ringSegment: 'r1' },
      numaNodes: [
        { id: 0, cpus: [0, 1, 2, 3], smtSiblings: [], memoryMib: 8192, hugepages: [], distances: [10, 21] },
        {
          id: 1,
          cpus: [4, 5, 6, 7],
          smtSiblings: [
            [4, 5],
            [6, 7],
          ],
          memoryMib: 8192,
          hugepages: [{ sizeMib: 2, pages: 100 }],
          distances: [21, 10],
        },
      ],
      reservedCpus: [0],
      isolatedCpus: [2, 3],
      reservedMemoryMib: 1024,
      // The one without an IOMMU group cannot be passed through; the one that two classes name is of the first.
      devices: [
        { address: '0000:3b:00.0', class: 'nic', numaNode: 1 },
        { address: '0000:3b:00.1', class: 'gps', numaNode: null },
      ],
      networks: new Set(),
    });
  });

  it('of an agent that found no NUMA nodes is one NUMA node', () => {
    const [host] = snapshotOf(rig.view, DEFAULT_POLICY).hosts;
    expect(host?.numaNodes).toMatchObject([{ id: 0, cpus: [0, 1, 2, 3, 4, 5, 6, 7], memoryMib: 65_536 }]);
    expect(host?.domains).toEqual(NO_DOMAINS);
  });

  it('that names CPUs or nodes twice is believed once', async () => {
    const numaNodes = [
      { id: 0, cpus: [0, 1], memoryBytes: GIB },
      { id: 1, cpus: [1, 2], memoryBytes: GIB },
      { id: 0, cpus: [3], memoryBytes: GIB },
    ];
    await inventory({ status: { inventory: { numaNodes } } });
    const [host] = snapshotOf(rig.view, DEFAULT_POLICY).hosts;
    expect(host?.numaNodes.map(({ id, cpus }) => [id, cpus])).toEqual([
      [0, [0, 1]],
      [1, [2]],
    ]);
  });

  it('that claims to be larger than any machine is cut down to one', async () => {
    const huge = 2 ** 31 - 1;
    await inventory({ status: { inventory: { numaNodes: [], cpu: { onlineCpus: huge }, memoryBytes: 2n ** 62n } } });
    expect(snapshotOf(rig.view, DEFAULT_POLICY).hosts[0]?.numaNodes).toMatchObject([{ memoryMib: 64 * 1024 ** 2 }]);
    expect(snapshotOf(rig.view, DEFAULT_POLICY).hosts[0]?.numaNodes[0]?.cpus.length).toBe(8192);
    const hugepages = [{ pageSizeBytes: 2n * MIB, total: 2n ** 62n }];
    const numaNodes = [
      { id: -1, cpus: [1] },
      { id: huge, cpus: [2] },
      { id: 7, cpus: [-1, 3, huge], memoryBytes: GIB, hugepages },
    ];
    await inventory({ status: { inventory: { numaNodes } } });
    expect(snapshotOf(rig.view, DEFAULT_POLICY).hosts[0]?.numaNodes).toMatchObject([
      { id: 7, cpus: [3], memoryMib: 1024, hugepages: [{ sizeMib: 2, pages: 512 }] },
    ]);
  });

  it('says why it takes no VM', async () => {
    expect(snapshotOf(rig.view, DEFAULT_POLICY, () => false).hosts[0]?.notSchedulable).toMatch(/has not reported/);
    const before = rig.view.tables['host-status'].get('host1')?.record;
    if (before === undefined) throw new Error('no host');
    await put(putRecord('host-status', 'host1', { ...before, state: HostState.DEGRADED, message: 'no libvirt' }));
    expect(snapshotOf(rig.view, DEFAULT_POLICY).hosts[0]?.notSchedulable).toBe('no libvirt');
  });
});

describe('a VM, as placement sees it', () => {
  it('has all that its spec says', () => {
    const spec = VmSpec.fromPartial({
      cpu: { vcpus: 4, policy: CpuPolicy.REALTIME, smtPolicy: SmtPolicy.ISOLATE, ioThreads: 2 },
      memoryBytes: 4n * GIB,
      hugepages: Hugepages.HUGEPAGES_1G,
      numa: { topology: NumaTopology.EXPLICIT, cells: [{ vcpus: 4, memoryBytes: 4n * GIB }], oneNodeRequired: true },
      devices: [{ class: 'nic', count: 2, numaPolicy: DeviceNumaPolicy.REQUIRED }],
      ha: { enabled: true, priority: 7 },
      placement: {
        hostSelector: { site: 'north' },
        pinnedHost: 'host1',
        preferredHosts: ['host2'],
        antiAffinityGroup: 'relays',
        rules: [
          { group: 'relays', kind: PlacementRuleKind.APART, soft: true },
          { group: 'bay-1', kind: PlacementRuleKind.PAIR },
        ],
      },
    });
    expect(requestOf(VmRecord.fromPartial({ meta: { id: 'v', name: 'relay-1' }, spec }), rig.view)).toEqual({
      id: 'v',
      name: 'relay-1',
      vcpus: 4,
      memoryMib: 4096,
      cpuPolicy: 'realtime',
      smt: 'isolate',
      ioThreads: 2,
      guestNuma: 'explicit',
      cells: [{ vcpus: 4, memoryMib: 4096 }],
      oneNodeRequired: true,
      hugepageMib: 1024,
      devices: [{ class: 'nic', count: 2, numa: 'required' }],
      hostSelector: { site: 'north' },
      networks: [],
      // The short form is hard, and there once.
      rules: [
        { group: 'bay-1', kind: 'pair', soft: false },
        { group: 'relays', kind: 'apart', soft: false },
      ],
      pinnedHost: 'host1',
      preferredHosts: ['host2'],
      ha: true,
      priority: 7,
    });
  });

  it('of an older version is shared and bound to nothing', () => {
    const spec = VmSpec.fromPartial({ cpu: { vcpus: 1 }, memoryBytes: GIB, devices: [{ class: 'nic' }] });
    expect(requestOf(VmRecord.fromPartial({ spec }), rig.view)).toMatchObject({
      cpuPolicy: 'shared',
      smt: 'prefer',
      guestNuma: 'none',
      hugepageMib: 0,
      devices: [{ class: 'nic', count: 1, numa: 'preferred' }],
      rules: [],
    });
  });
});

describe('what a VM holds', () => {
  const host: Host = {
    id: 'host1' as HostId,
    notSchedulable: '',
    labels: {},
    domains: NO_DOMAINS,
    numaNodes: [1024, 3072].map((memoryMib, id) => ({
      id,
      cpus: [id],
      smtSiblings: [],
      memoryMib,
      hugepages: [],
      distances: [],
    })),
    reservedCpus: [],
    isolatedCpus: [],
    devices: [],
    networks: new Set(),
  };
  const vm = () => requestOf(VmRecord.fromPartial({ spec: { cpu: { vcpus: 4 }, memoryBytes: GIB } }), rig.view);

  it('is what was stored', () => {
    const stored = Placement.fromPartial({
      host: 'host1',
      cells: [{ numaNode: 1, vcpus: 4, cpus: [9, 8, 7, 6], memoryBytes: GIB }],
      emulatorCpus: [1],
      ioThreadCpus: [2],
      devices: [
        { class: 'nic', address: '0000:3b:00.1', numaNode: 1 },
        { class: 'gps', address: '0000:3b:00.2', numaNode: -1 },
      ],
    });
    const restored = restorePlacement(stored, vm(), host);
    expect(restored.devices[1]?.numaNode).toBeNull();
    expect(presentPlacement(restored)).toEqual(stored);
  });

  it('without a record of it is spread over the NUMA nodes by their memory', () => {
    expect(restorePlacement(undefined, vm(), host)).toEqual({
      host: 'host1',
      cells: [
        { numaNode: 0, vcpus: 1, cpus: [], memoryMib: 256 },
        { numaNode: 1, vcpus: 3, cpus: [], memoryMib: 768 },
      ],
      emulatorCpus: [],
      ioThreadCpus: [],
      devices: [],
    });
    const empty = { ...host, numaNodes: host.numaNodes.map((node) => ({ ...node, memoryMib: 0 })) };
    expect(restorePlacement(undefined, vm(), empty).cells).toMatchObject([{ numaNode: 1, vcpus: 4, memoryMib: 1024 }]);
  });
});

describe('a dry run', () => {
  const create = (spec: Parameters<typeof VmSpec.fromPartial>[0], name = 'relay-1') =>
    rig.call<CreateVmResponse>('VmService', 'createVm', {
      name,
      labels: {},
      spec: VmSpec.fromPartial({ runPolicy: RunPolicy.RUNNING, memoryBytes: GIB, ...spec }),
      validateOnly: true,
      requestId: '',
    });

  it('tells exactly what the VM would get', async () => {
    await inventory(twoNodes);
    const { placement } = await create({ cpu: { vcpus: 1, policy: CpuPolicy.REALTIME } });
    expect(placement).toMatchObject({
      host: 'host1',
      placement: { host: 'host1', cells: [{ numaNode: 0, vcpus: 1, cpus: [2], memoryBytes: GIB }], emulatorCpus: [0] },
      verdicts: [{ host: 'host1', fits: true, refusals: [] }],
    });
    expect(placement?.verdicts[0]?.scoreParts.length).toBeGreaterThan(0);
  });

  it('refuses with the numbers, and counts what was decided for others', async () => {
    await inventory(twoNodes);
    await put(
      putRecord(
        'vm',
        'held',
        VmRecord.fromPartial({
          meta: { id: 'held', name: 'held' },
          spec: { cpu: { vcpus: 1, policy: CpuPolicy.REALTIME }, memoryBytes: GIB },
        }),
      ),
      putRecord(
        'vm-status',
        'held',
        VmStatusRecord.fromPartial({
          phase: VmPhase.STARTING,
          host: 'host1',
          epoch: 1n,
          placement: {
            host: 'host1',
            cells: [{ numaNode: 0, vcpus: 1, cpus: [3], memoryBytes: GIB }],
            emulatorCpus: [1],
          },
        }),
      ),
    );
    await expect(create({ cpu: { vcpus: 2, policy: CpuPolicy.REALTIME } })).rejects.toMatchObject({
      reason: 'NO_HOST_FITS',
      message: expect.stringMatching(/isolated CPUs, 1 free: 2/),
    });
    const { placement } = await create({ cpu: { vcpus: 1, policy: CpuPolicy.REALTIME } });
    expect(placement?.placement?.cells[0]?.cpus).toEqual([2]);
  });
});
