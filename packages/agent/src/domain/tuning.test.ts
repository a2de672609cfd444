// SPDX-License-Identifier: Apache-2.0
import { formatCpuList } from '@busbar/core/cpu-list';
import type { DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { CpuPolicy, DiskBus, Hugepages, type Placement } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fileDisk, startRequest } from '../driver/domain.fixture.ts';
import { buildDomain } from './build.ts';
import type { HostCpus, HostFacts } from './facts.ts';
import { observationOf, tuningOf } from './tuning.ts';
import { observedPlacement } from './tuning-xml.ts';
import { parseXml, serialize } from './xml.ts';

const MIB = 1024n ** 2n;
const CPUS: HostCpus = { online: range(16), isolated: [8, 9, 10, 11], ofNode: new Map(), pretended: false };
const facts = (cpus: HostCpus, kvmUsable = true): HostFacts => ({
  kvmUsable,
  uid: null,
  rbd: null,
  paths: { consoleSocket: '/run/c', serialLog: '/log/s', nvram: '/state/n.fd', seedIso: '/state/s.iso' },
  cpus,
});
const xmlOf = (spec: Partial<DomainSpec>, cpus = CPUS, kvm = true) =>
  serialize(buildDomain(startRequest(1, spec), facts(cpus, kvm)));

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

function placed(cells: Placement['cells'], more: Partial<Placement> = {}): Placement {
  return { host: 'host1', cells, emulatorCpus: [], ioThreadCpus: [], devices: [], ...more };
}

const realtime: Partial<DomainSpec> = {
  vcpus: 4,
  memoryBytes: 4096n * MIB,
  cpuPolicy: CpuPolicy.REALTIME,
  realtimePriority: 50,
  ioThreads: 1,
  hugepages: Hugepages.HUGEPAGES_1G,
  memoryLocked: true,
  guestNuma: true,
  disks: [fileDisk('/a.raw'), fileDisk('/b.raw', { bus: DiskBus.SCSI })],
  placement: placed(
    [
      { numaNode: 1, vcpus: 2, cpus: [9, 8], memoryBytes: 1024n * MIB },
      { numaNode: 0, vcpus: 2, cpus: [10, 11], memoryBytes: 3072n * MIB },
    ],
    {
      emulatorCpus: [5, 4],
      ioThreadCpus: [6],
      devices: [
        { class: 'process-bus-nic', address: '0000:3b:00.1', numaNode: 1 },
        { class: 'gps', address: 'ab12:00:1f.7', numaNode: -1 },
      ],
    },
  ),
};

describe('a realtime VM', () => {
  const xml = xmlOf(realtime);

  test('has its CPUs, its priority, its threads apart', () => {
    expect(xml).toContain(`  <cputune>
    <vcpupin vcpu="0" cpuset="9"/>
    <vcpupin vcpu="1" cpuset="8"/>
    <vcpupin vcpu="2" cpuset="10"/>
    <vcpupin vcpu="3" cpuset="11"/>
    <emulatorpin cpuset="4-5"/>
    <iothreadpin iothread="1" cpuset="6"/>
    <vcpusched vcpus="0-3" scheduler="fifo" priority="50"/>
  </cputune>`);
    expect(xml).toContain('<iothreads>1</iothreads>');
    expect(xml).toMatch(/discard="unmap" iothread="1"/);
    expect(xml).toMatch(/<controller type="scsi" model="virtio-scsi">\s*<driver iothread="1"\/>/);
  });

  test('has its memory: strict nodes, pages, locked, never merged, never ballooned', () => {
    expect(xml).toContain(`  <numatune>
    <memory mode="strict" nodeset="0-1"/>
    <memnode cellid="0" mode="strict" nodeset="1"/>
    <memnode cellid="1" mode="strict" nodeset="0"/>
  </numatune>`);
    expect(xml).toContain(`  <memoryBacking>
    <hugepages>
      <page size="1048576" unit="KiB" nodeset="0-1"/>
    </hugepages>
    <nosharepages/>
    <locked/>
  </memoryBacking>`);
    expect(xml).toContain('<memballoon model="none"/>');
  });

  test('sees the cells and nothing that costs it time', () => {
    expect(xml).toContain('<cell id="0" cpus="0-1" memory="1048576" unit="KiB" memAccess="private"/>');
    expect(xml).toContain('<cell id="1" cpus="2-3" memory="3145728" unit="KiB" memAccess="private"/>');
    expect(xml).toContain('<pmu state="off"/>');
    expect(xml).toMatch(/<kvm>\s*<hint-dedicated state="on"\/>/);
    expect(xml).toContain('<timer name="hpet" present="no"/>');
    expect(xml).toContain('<cpu mode="host-passthrough"');
    expect(xmlOf({ ...realtime, cpuModel: 'Skylake-Server' })).toContain('>Skylake-Server</model>');
    const emulated = xmlOf(realtime, CPUS, false);
    expect(emulated).toContain('<cpu mode="maximum">');
    expect(emulated).not.toContain('hint-dedicated');
  });

  test('has its devices, in order', () => {
    expect(xml.match(/<hostdev mode="subsystem" type="pci" managed="yes">/g)).toHaveLength(2);
    expect(xml).toMatch(
      /<address domain="0x0000" bus="0x3b" slot="0x00" function="0x1"\/>[\s\S]*<address domain="0xab12" bus="0x00" slot="0x1f" function="0x7"\/>/,
    );
  });

  test('on a pretended topology has only what exists: CPUs', () => {
    const lab = xmlOf(realtime, { online: [0, 3], isolated: [], ofNode: new Map(), pretended: true });
    expect(lab.match(/<vcpupin vcpu="\d" cpuset="\d+"/g)).toEqual([
      '<vcpupin vcpu="0" cpuset="3"',
      '<vcpupin vcpu="1" cpuset="0"',
      '<vcpupin vcpu="2" cpuset="0"',
      '<vcpupin vcpu="3" cpuset="3"',
    ]);
    expect(lab).toMatch(/<emulatorpin cpuset="0,3"\/>\s*<iothreadpin iothread="1" cpuset="0"\/>\s*<\/cputune>/);
    expect(lab).not.toMatch(/vcpusched|numatune|hugepages|locked/);
    expect(lab).toContain('<cell id="0" cpus="0-1" memory="1048576" unit="KiB"/>');
  });
});

test('the threads of a dedicated VM stay off its CPUs and off those for realtime', () => {
  const spec = {
    vcpus: 2,
    ioThreads: 1,
    cpuPolicy: CpuPolicy.DEDICATED,
    placement: placed([{ numaNode: 0, vcpus: 2, cpus: [2, 3], memoryBytes: 32n * MIB }]),
  };
  const xml = xmlOf(spec);
  expect(xml).toContain('<emulatorpin cpuset="0-1,4-7,12-15"/>');
  expect(xml).toContain('<iothreadpin iothread="1" cpuset="0-1,4-7,12-15"/>');
  expect(xml).toContain('<memory mode="strict" nodeset="0"/>');
  expect(xml).not.toMatch(/vcpusched|memoryBacking|<cell|memnode|<pmu/);
  // No other CPU is left: then they share.
  expect(xmlOf(spec, { online: [2, 3], isolated: [], ofNode: new Map(), pretended: false })).not.toContain(
    'emulatorpin',
  );
});

test('a shared VM is bound to memory alone, and one of a leader that decided nothing to nothing', () => {
  const shared = xmlOf({ placement: placed([{ numaNode: 1, vcpus: 1, cpus: [], memoryBytes: 32n * MIB }]) });
  expect(shared).toContain('<memory mode="strict" nodeset="1"/>');
  expect(shared).not.toMatch(/cputune|memoryBacking|<vcpu [^>]*cpuset/);
  const twoNodes = {
    ...CPUS,
    ofNode: new Map([
      [0, range(8)],
      [1, range(16).slice(8)],
    ]),
  };
  const spec = { placement: placed([{ numaNode: 1, vcpus: 1, cpus: [], memoryBytes: 32n * MIB }]) };
  // Beside its memory, but not on the isolated CPUs.
  expect(xmlOf(spec, twoNodes)).toContain('<vcpu placement="static" cpuset="12-15">1</vcpu>');
  expect(xmlOf(spec, { ...twoNodes, pretended: true })).toContain('<vcpu placement="static">1</vcpu>');
  expect(xmlOf({})).not.toMatch(/cputune|numatune|memoryBacking|iothread/);
});

test.each([
  ['vCPUs', { vcpus: 3 }],
  ['memory', { memoryBytes: 64n * MIB }],
  ['policy', { cpuPolicy: CpuPolicy.SHARED }],
])('a VM whose %s changed since it was placed is not started', (_what, change) => {
  const placement = placed([{ numaNode: 0, vcpus: 2, cpus: [2, 3], memoryBytes: 32n * MIB }]);
  expect(() => xmlOf({ vcpus: 2, cpuPolicy: CpuPolicy.DEDICATED, placement, ...change })).toThrow('changed since');
});

/** Any placement that a planner could decide, and some that it could not: each CPU may come twice. */
const tuned = fc
  .record({
    policy: fc.constantFrom(CpuPolicy.SHARED, CpuPolicy.DEDICATED, CpuPolicy.REALTIME),
    cells: fc.array(
      fc.record({
        numaNode: fc.nat(7),
        cpus: fc.array(fc.nat(255), { minLength: 1, maxLength: 8 }),
        mib: fc.nat(4096),
      }),
      { minLength: 1, maxLength: 4 },
    ),
    emulatorCpus: fc.array(fc.nat(255), { maxLength: 3 }),
    ioThreadCpus: fc.array(fc.nat(255), { maxLength: 4 }),
    floatingThreads: fc.nat(2),
    hugepages: fc.constantFrom(Hugepages.HUGEPAGES_NONE, Hugepages.HUGEPAGES_2M, Hugepages.HUGEPAGES_1G),
    priority: fc.integer({ min: 1, max: 99 }),
    guestNuma: fc.boolean(),
    memoryLocked: fc.boolean(),
    devices: fc.array(fc.stringMatching(/^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/), { maxLength: 4 }),
    online: fc.uniqueArray(fc.nat(255), { minLength: 1, maxLength: 32 }).map((cpus) => cpus.toSorted((a, b) => a - b)),
    pretended: fc.boolean(),
  })
  .map((of) => {
    const pinned = of.policy !== CpuPolicy.SHARED;
    const cells = of.cells.map(({ numaNode, cpus, mib }) => ({
      numaNode,
      vcpus: cpus.length,
      cpus: pinned ? cpus : [],
      memoryBytes: BigInt(mib) * MIB,
    }));
    const spec: Partial<DomainSpec> = {
      vcpus: cells.reduce((sum, cell) => sum + cell.vcpus, 0),
      memoryBytes: cells.reduce((sum, cell) => sum + cell.memoryBytes, 0n),
      cpuPolicy: of.policy,
      realtimePriority: of.policy === CpuPolicy.REALTIME ? of.priority : 0,
      ioThreads: of.ioThreadCpus.length + of.floatingThreads,
      hugepages: of.hugepages,
      guestNuma: of.guestNuma,
      memoryLocked: of.memoryLocked,
      placement: placed(cells, {
        emulatorCpus: of.policy === CpuPolicy.REALTIME ? of.emulatorCpus : [],
        ioThreadCpus: of.policy === CpuPolicy.REALTIME ? of.ioThreadCpus : [],
        devices: of.devices.map((address) => ({ class: 'nic', address, numaNode: -1 })),
      }),
    };
    return { spec, cpus: { online: of.online, isolated: [], ofNode: new Map(), pretended: of.pretended } };
  });

test('what is read from the XML is what was put in', () => {
  fc.assert(
    fc.property(tuned, ({ spec, cpus }) => {
      const request = startRequest(1, spec);
      const read = observedPlacement(parseXml(serialize(buildDomain(request, facts(cpus)))));
      expect(read).toEqual(observationOf(tuningOf(request.domain, cpus), formatCpuList));
    }),
    { numRuns: 300 },
  );
});

test("other people's XML is read without harm", () => {
  const odd = parseXml(`<domain><vcpu>99999999</vcpu><iothreads>x</iothreads><cputune>
    <vcpupin vcpu='-1' cpuset='1'/><vcpupin vcpu='3' cpuset='^1,2-'/><vcpupin cpuset='0-3'/>
    <vcpusched vcpus='0' scheduler='rr' priority='9'/><emulatorpin/></cputune>
    <memoryBacking><hugepages><page size='1e9' unit='PiB'/></hugepages></memoryBacking>
    <devices><hostdev type='usb'/><hostdev type='pci'><source><address bus='0x3b'/></source></hostdev></devices></domain>`);
  expect(observedPlacement(odd)).toMatchObject({
    emulatorCpus: '',
    ioThreadCpus: [],
    realtimePriority: 0,
    hugepageBytes: 0n,
    devices: ['0000:3b:00.0'],
  });
});
