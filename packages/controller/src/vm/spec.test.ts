// SPDX-License-Identifier: Apache-2.0
import { BusbarError, type FieldViolation } from '@busbar/core/errors';
import { Firmware, IsolationPolicy, MachineType, RunPolicy, VmSpec } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { parse } from '../api/validation.ts';
import { assertSameDisks, vmSpecSchema, withDefaults } from './spec.ts';

const MIB = 1024n ** 2n;
const TIB = 1024n ** 4n;
const holder = z.object({ spec: vmSpecSchema });
const good = {
  cpu: { vcpus: 2 },
  memoryBytes: 256n * MIB,
  disks: [{ name: 'boot', sizeBytes: 64n * MIB }],
  nics: [{ name: 'lan', network: 'plant' }],
};
type Partial_ = Parameters<typeof VmSpec.fromPartial>[0];
const specOf = (more: Partial_ = {}) => VmSpec.fromPartial({ ...good, ...more });

function violations(spec: unknown): readonly FieldViolation[] {
  try {
    parse(holder, { spec });
  } catch (error) {
    expect(error).toBeInstanceOf(BusbarError);
    expect(error).toMatchObject({ kind: 'invalid', reason: 'INVALID_REQUEST' });
    return (error as BusbarError).fields;
  }
  return [];
}
const disk = (more: object) => specOf({ disks: [{ name: 'boot', sizeBytes: 64n * MIB, ...more }] });
const nic = (more: object) => specOf({ nics: [{ name: 'lan', network: 'plant', ...more }] });
const several = (count: number, item: (i: number) => object) => Array.from({ length: count }, (_, i) => item(i));

describe('limits of a VM', () => {
  it.each<[string, unknown]>([
    ['the least', specOf({ cpu: { vcpus: 1 }, memoryBytes: 16n * MIB, disks: [], nics: [] })],
    ['the most', specOf({ cpu: { vcpus: 512 }, memoryBytes: 16n * TIB })],
    ['a topology', specOf({ cpu: { vcpus: 8, topology: { sockets: 2, cores: 2, threads: 2 } } })],
    ['an empty topology', specOf({ cpu: { vcpus: 8, topology: { sockets: 0, cores: 0, threads: 0 } } })],
    ['16 disks', specOf({ disks: several(16, (i) => ({ name: `d${i}`, sizeBytes: MIB })) })],
    ['16 NICs', specOf({ nics: several(16, (i) => ({ name: `n${i}`, network: 'x' })) })],
    ['the largest disk', disk({ sizeBytes: 64n * TIB })],
    ['64 KiB of cloud-init', specOf({ cloudInit: { userData: 'x'.repeat(65_535), networkConfig: 'y' } })],
    ['shutdown in a second', specOf({ shutdownTimeoutMs: 1_000 })],
    ['shutdown in an hour', specOf({ shutdownTimeoutMs: 3_600_000 })],
    ['a MAC address', nic({ macAddress: '52:54:00:12:34:56' })],
  ])('takes %s', (_name, spec) => {
    expect(violations(spec)).toEqual([]);
  });

  it.each<[unknown, string, string, string]>([
    [undefined, 'spec', 'is missing', 'the VM: {cpu: {vcpus: …}, memoryBytes: …}'],
    [specOf({ cpu: { vcpus: 0 } }), 'spec.cpu.vcpus', 'is 0', '1 to 512'],
    [specOf({ cpu: { vcpus: 513 } }), 'spec.cpu.vcpus', 'is 513', '1 to 512'],
    [specOf({ cpu: { vcpus: -1 } }), 'spec.cpu.vcpus', 'is -1', '1 to 512'],
    [specOf({ cpu: { vcpus: 1.5 } }), 'spec.cpu.vcpus', 'is 1.5', 'a whole number'],
    [VmSpec.fromPartial({ memoryBytes: 256n * MIB }), 'spec.cpu', 'is missing', 'vCPUs: cpu: {vcpus: …}'],
    [
      specOf({ cpu: { vcpus: 8, topology: { sockets: 1, cores: 2, threads: 2 } } }),
      'spec.cpu.topology',
      'is {"sockets":1,"cores":2,"threads":2}',
      'sockets × cores × threads = 8 vCPUs (it is 4)',
    ],
    [
      specOf({ cpu: { vcpus: 1, model: 'a b' } }),
      'spec.cpu.model',
      'is "a b"',
      'a libvirt CPU model, host-model or host-passthrough',
    ],
    [specOf({ memoryBytes: 15n * MIB }), 'spec.memoryBytes', 'is 15728640', '16 MiB to 16 TiB'],
    [specOf({ memoryBytes: -MIB }), 'spec.memoryBytes', 'is -1048576', '16 MiB to 16 TiB'],
    [specOf({ memoryBytes: 16n * TIB + MIB }), 'spec.memoryBytes', 'is 17592187092992', '16 MiB to 16 TiB'],
    [specOf({ memoryBytes: 64n * MIB + 1n }), 'spec.memoryBytes', 'is 67108865', 'a multiple of 1 MiB'],
    [
      specOf({ disks: several(17, (i) => ({ name: `d${i}`, sizeBytes: MIB })) }),
      'spec.disks',
      'is [',
      'at most 16 disks',
    ],
    [specOf({ nics: several(17, (i) => ({ name: `n${i}`, network: 'x' })) }), 'spec.nics', 'is [', 'at most 16 NICs'],
    [disk({ sizeBytes: MIB - 512n }), 'spec.disks[0].sizeBytes', 'is 1048064', '1 MiB to 64 TiB'],
    [disk({ sizeBytes: -512n }), 'spec.disks[0].sizeBytes', 'is -512', '1 MiB to 64 TiB'],
    [disk({ sizeBytes: MIB + 1n }), 'spec.disks[0].sizeBytes', 'is 1048577', 'a multiple of 512 bytes'],
    [disk({ sizeBytes: 0n }), 'spec.disks[0].sizeBytes', 'is 0', 'a volume, an image or a size'],
    [
      disk({ volume: 'v' }),
      'spec.disks[0].volume',
      'is "v"',
      'either a volume, or image and/or sizeBytes of one to create',
    ],
    [disk({ bootOrder: 33 }), 'spec.disks[0].bootOrder', 'is 33', '0 to 32'],
    [disk({ bus: 'nvme' }), 'spec.disks[0].bus', 'is "nvme"', 'one of DISK_BUS_'],
    [disk({ name: 'a b' }), 'spec.disks[0].name', 'is "a b"', '1 to 20 lower-case letters'],
    [nic({ network: '' }), 'spec.nics[0].network', 'is ""', 'a name or an id'],
    [nic({ macAddress: '01:00:00:00:00:00' }), 'spec.nics[0].macAddress', 'is "01:', 'a unicast MAC address'],
    [nic({ macAddress: '52:54:00:12:34:5G' }), 'spec.nics[0].macAddress', 'is "52:', 'a unicast MAC address'],
    [nic({ macAddress: '52:54:00:AA:34:56' }), 'spec.nics[0].macAddress', 'is "52:', 'a unicast MAC address'],
    [
      specOf({ nics: [good.nics[0] as object, good.nics[0] as object] as never }),
      'spec.nics[1].name',
      'is "lan"',
      'a name used once among nics',
    ],
    [
      specOf({
        disks: [{ name: 'a', sizeBytes: MIB, bootOrder: 1 }],
        nics: [{ name: 'n', network: 'x', bootOrder: 1 }],
      }),
      'spec.disks',
      'is [{"name":"a"',
      'each bootOrder used once among disks and NICs',
    ],
    [
      specOf({ cloudInit: { userData: 'é'.repeat(32_768), networkConfig: 'x' } }),
      'spec.cloudInit',
      'is {"userData":"not shown here"',
      'at most 64 KiB in all',
    ],
    [specOf({ ha: { enabled: true, priority: 1_001 } }), 'spec.ha.priority', 'is 1001', '0 to 1000'],
    [
      specOf({ shutdownTimeoutMs: 999 }),
      'spec.shutdownTimeoutMs',
      'is 999',
      '1000 to 3600000 ms, or 0 for the default',
    ],
    [specOf({ shutdownTimeoutMs: 3_600_001 }), 'spec.shutdownTimeoutMs', 'is 3600001', '1000 to 3600000 ms'],
    [
      specOf({ placement: { antiAffinityGroup: '-x' } }),
      'spec.placement.antiAffinityGroup',
      'is "-x"',
      "up to 63 letters, digits, '-', '_', '.'",
    ],
    [{ ...specOf(), machineType: 'pc' }, 'spec.machineType', 'is "pc"', 'one of MACHINE_TYPE_'],
  ])('refuses %#', (spec, field, problem, expected) => {
    const found = violations(spec).find((each) => each.field === field && each.expected.startsWith(expected));
    expect(found, JSON.stringify(violations(spec))).toBeDefined();
    expect(found?.problem.startsWith(problem), found?.problem).toBe(true);
  });

  it('throws nothing but a refusal, whatever it is given', () => {
    const anything = fc.anything({ withBigInt: true, withDate: true, withTypedArray: true, maxDepth: 2 });
    fc.assert(
      fc.property(anything, (value) => void violations(value)),
      { numRuns: 150 },
    );
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...Object.keys(specOf())), anything), (more) => {
        violations({ ...specOf(), ...more });
      }),
      { numRuns: 150 },
    );
  });
});

describe('defaults', () => {
  const ID = '6695eb01-f6a4-4304-89aa-97f2502e193f';

  it('say the whole truth, and twice is once', () => {
    const once = withDefaults(specOf(), ID);
    expect(once).toMatchObject({
      runPolicy: RunPolicy.RUNNING,
      machineType: MachineType.Q35,
      firmware: Firmware.BIOS,
      isolationPolicy: IsolationPolicy.KEEP_RUNNING,
      shutdownTimeoutMs: 60_000,
    });
    expect(once.disks[0]).toMatchObject({ bootOrder: 1 });
    expect(withDefaults(once, ID)).toEqual(once);
    expect(withDefaults(specOf({ ha: { enabled: true, priority: 0 } }), ID).isolationPolicy).toBe(
      IsolationPolicy.ISOLATE,
    );
    const booted = withDefaults(specOf({ nics: [{ name: 'n', network: 'x', bootOrder: 1 }] }), ID);
    expect(booted.disks[0]?.bootOrder).toBe(0);
    expect(violations(once)).toEqual([]);
  });

  it('make MAC addresses that are unicast, stable and different', () => {
    fc.assert(
      fc.property(fc.uuid(), fc.stringMatching(/^[a-z][a-z0-9]{0,5}$/), (id, name) => {
        const nics = [
          { name, network: 'x' },
          { name: `${name}-2`, network: 'x' },
        ];
        const [first, second] = withDefaults(specOf({ nics }), id).nics;
        expect(violations(specOf({ nics: [{ name, network: 'x', macAddress: first?.macAddress ?? '' }] }))).toEqual([]);
        expect(first?.macAddress).toMatch(/^52:54:00(:[0-9a-f]{2}){3}$/);
        expect(withDefaults(specOf({ nics }), id).nics[0]?.macAddress).toBe(first?.macAddress);
        expect(second?.macAddress).not.toBe(first?.macAddress);
      }),
    );
  });

  it('disks stay what they are for life', () => {
    const before = withDefaults(specOf(), ID);
    expect(() => assertSameDisks(before, withDefaults(specOf(), ID))).not.toThrow();
    for (const disks of [[], [{ name: 'data', sizeBytes: 64n * MIB }], [{ name: 'boot', sizeBytes: 65n * MIB }]])
      expect(() => assertSameDisks(before, specOf({ disks }))).toThrow(/spec\.disks/);
  });
});
