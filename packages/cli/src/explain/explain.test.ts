// SPDX-License-Identifier: Apache-2.0
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { message } from '../schema/schema.ts';
import { startLab, type TestLab } from '../testing/cli.ts';

vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab(0);
  return () => lab.end();
});

test('a field: comment, type, values, default, and how to filter by it', async () => {
  expect(await lab.cli('explain', 'vm.spec.disks.bus')).toMatchInlineSnapshot(`
    {
      "code": 0,
      "stderr": "",
      "stdout": "vm.spec.disks.bus
      How it is attached.

      type      word, one in each of disks
      values    virtio  virtio-blk.
                scsi    virtio-scsi.
                sata    AHCI, for guests without virtio drivers.
      in JSON   "DISK_BUS_VIRTIO"
      default   At creation: virtio.
      required  no
      filter    busbar vm list --filter 'spec.disks.bus=virtio'
    ",
    }
  `);
});

test.each([
  ['vm.spec.memory_bytes', ['  unit      bytes\n', '16 MiB to 16 TiB', '  required  yes\n', 'spec.memoryBytes>1GiB']],
  ['vm.spec.cpu.vcpus', ['  limits    1 to 512\n', '  required  yes\n']],
  ['vm.spec.disks.name', ['  limits    1 to 20 lower-case letters']],
  ['vm.meta.name', ['  limits    1 to 63 lower-case letters', '  required  yes\n']],
  ['vm.spec.shutdownTimeoutMs', ['  unit      milliseconds\n', '30s, 5min, 1h']],
  [
    'vm.spec.cpu.policy',
    ['  values    shared ', 'dedicated ', 'realtime ', '"CPU_POLICY_SHARED"', 'At creation: shared.'],
  ],
  ['vm.spec.hugepages', ['  values    none ', '2m ', '1g ', '"HUGEPAGES_NONE"']],
  ['vm.spec.numa.cells.memoryBytes', ['  unit      bytes\n']],
  ['vm.spec.placement.rules.kind', ['together', 'apart', 'pair', '  required  yes\n']],
  ['vm.status.placement.cells.cpus', ['The host CPU of each vCPU']],
  ['host.spec.deviceClasses', ['its fields', '  devices']],
  ['network.spec.vlanTag', ['  limits    0 to 4094\n']],
  ['vm.status.phase', ['pending   It shall run but no host has room']],
  ['vm.meta.labels.plant', ['  type      text\n']],
  ['host.status.inventory', ['its fields', '  memoryBytes']],
])('%s', async (path, texts) => {
  const { code, stdout } = await lab.cli('explain', path);
  expect(code).toBe(0);
  for (const text of texts) expect(stdout).toContain(text);
  for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
});

test('a kind: the tree, within 100 columns', async () => {
  const { stdout } = await lab.cli('explain', 'Vm');
  expect(stdout).toMatch(/^vm: One VM\.\n {2}meta +object/);
  expect(stdout).toMatch(/\n {6}vcpus +number +1 to 512\. Required\./);
  for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
});

test('kinds, and JSON', async () => {
  expect((await lab.cli('explain')).stdout).toMatch(/^cluster .*\nhost .*\nvm +One VM\.\n/);
  expect(JSON.parse((await lab.cli('explain', 'vm.spec.disks.bus', '-o', 'json')).stdout)).toMatchObject({
    path: 'vm.spec.disks.bus',
    type: 'word',
    default: 'At creation: virtio.',
    values: [{ name: 'virtio', json: 'DISK_BUS_VIRTIO' }, { name: 'scsi' }, { name: 'sata' }],
  });
});

describe('a wrong path suggests the nearest', () => {
  test.each([
    ['vmm', 'did you mean vm?'],
    ['vm.spec.disk.bus', 'did you mean vm.spec.disks?'],
    ['vm.spec.disks.buss', 'did you mean vm.spec.disks.bus?'],
    ['vm.spec.memoryBytes.x', 'did you mean vm.spec.memoryBytes?'],
    ['vm.spec.q', 'one of runPolicy, cpu, memoryBytes'],
  ])('%s', async (path, hint) => {
    const { code, stderr } = await lab.cli('explain', path);
    expect({ code, hint: stderr.split('\n')[2] }).toEqual({
      code: 2,
      hint: expect.stringContaining(`do: ${hint}`) as string,
    });
  });
});

test('every field of the API has a comment', () => {
  const bare: string[] = [];
  const seen = new Set<string>();
  const look = (name: string): void => {
    if (seen.has(name)) return;
    seen.add(name);
    const { comment, fields } = message(name);
    if (comment === '') bare.push(name);
    for (const field of fields) {
      if (field.comment === '') bare.push(`${name}.${field.name}`);
      for (const value of field.values ?? []) if (value.comment === '') bare.push(value.json);
      if (field.message !== undefined) look(field.message);
    }
  };
  for (const name of ['Vm', 'Host', 'Volume', 'Image', 'Network', 'Operation', 'Cluster']) look(`busbar.v1.${name}`);
  expect(bare).toEqual([]);
  expect(seen.size).toBeGreaterThan(20);
});
