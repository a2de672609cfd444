// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';

const example = (name: string) => readFileSync(new URL(`../../../../examples/${name}`, import.meta.url), 'utf8');
const GUEST = example('guest-vm.yaml');
const NETWORK = example('network.yaml');

vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab();
  lab.file('guest.img', Buffer.alloc(4096, 'x'));
  await lab.cli('image', 'import', 'busbar-guest', 'guest.img');
  lab.file('all.yaml', `${GUEST}---\n${NETWORK}`);
});
afterEach(() => lab.end());

test('what is not there yet: all of it, exit code 1, and nothing is sent', async () => {
  lab.cluster.calls.length = 0;
  expect(await lab.cli('diff', '-f', 'all.yaml')).toMatchInlineSnapshot(`
    {
      "code": 1,
      "stderr": "",
      "stdout": "--- network/plant (not there)
    +++ network/plant (all.yaml)
    +labels.purpose: process
    +spec.kind: linux
    +spec.bridge: br-vm
    --- vm/guest-1 (not there)
    +++ vm/guest-1 (all.yaml)
    +labels.plant: demo
    +spec.runPolicy: running
    +spec.cpu.vcpus: 1
    +spec.memoryBytes: 256MiB
    +spec.machineType: q35
    +spec.firmware: bios
    +spec.disks[boot].name: boot
    +spec.disks[boot].image: busbar-guest
    +spec.disks[boot].bootOrder: 1
    +spec.disks[data].name: data
    +spec.disks[data].sizeBytes: 64MiB
    +spec.nics[eth0].name: eth0
    +spec.nics[eth0].network: plant
    +spec.cloudInit.userData: 32 bytes (sha256 089976e15938…)
    +spec.cloudInit.networkConfig: 84 bytes (sha256 6add498c840a…)
    ",
    }
  `);
  expect(lab.cluster.calls.every((call) => call.startsWith('Get'))).toBe(true);
});

test('what agrees: nothing, exit code 0, ids and defaults notwithstanding', async () => {
  await lab.cli('apply', '-f', 'all.yaml');
  expect(await lab.cli('diff', '-f', 'all.yaml')).toEqual({ code: 0, stdout: '', stderr: '' });
  expect(JSON.parse((await lab.cli('diff', '-f', 'all.yaml', '-o', 'json')).stdout)).toMatchObject({ differs: false });
});

test('what differs, value by value, names instead of ids', async () => {
  await lab.cli('apply', '-f', 'all.yaml');
  await lab.cli('network', 'create', 'control', '--bridge', 'br-control');
  const changed = GUEST.replace('256MiB', '1536MiB')
    .replace('plant: demo', 'site: west')
    .replace('network: plant', 'network: control')
    .replace('runPolicy: running', 'runPolicy: stopped');
  lab.file('vm.yaml', changed);
  expect(await lab.cli('diff', '-f', 'vm.yaml')).toMatchInlineSnapshot(`
    {
      "code": 1,
      "stderr": "",
      "stdout": "--- vm/guest-1 (cluster, revision 103)
    +++ vm/guest-1 (vm.yaml)
    -labels.plant: demo
    +labels.site: west
    -spec.runPolicy: running
    +spec.runPolicy: stopped
    -spec.memoryBytes: 256MiB
    +spec.memoryBytes: 1536MiB
    -spec.nics[0].network: plant
    +spec.nics[0].network: control
    ",
    }
  `);
  const json = JSON.parse((await lab.cli('diff', '-f', 'vm.yaml', '-o', 'json')).stdout) as object;
  expect(json).toMatchObject({
    differs: true,
    resources: [
      {
        kind: 'vm',
        name: 'guest-1',
        action: 'update',
        changes: [
          { field: 'labels.plant', before: 'demo', after: null, possible: true },
          { field: 'labels.site', before: null, after: 'west', possible: true },
          { field: 'spec.runPolicy', before: 'running', after: 'stopped', possible: true },
          { field: 'spec.memoryBytes', before: '256MiB', after: '1536MiB', possible: true },
          { field: 'spec.nics[0].network', before: 'plant', after: 'control', possible: true },
        ],
      },
    ],
  });
  await lab.cli('apply', '-f', 'vm.yaml');
  expect((await lab.cli('diff', '-f', 'vm.yaml')).code).toBe(0);
});

test('an element more or less of a list', async () => {
  await lab.cli('apply', '-f', 'all.yaml');
  const disk = '    - name: extra\n      sizeBytes: 64MiB\n  nics:';
  lab.file('vm.yaml', GUEST.replace('  nics:', disk));
  expect((await lab.cli('diff', '-f', 'vm.yaml')).stdout.split('\n').slice(2)).toEqual([
    '+spec.disks[extra].name: extra',
    '+spec.disks[extra].sizeBytes: 64MiB',
    '',
  ]);
});

test('what apply would refuse is said', async () => {
  await lab.cli('apply', '-f', 'all.yaml');
  lab.file('network.yaml', NETWORK.replace('br-vm', 'br-other'));
  const { code, stdout, stderr } = await lab.cli('diff', '-f', 'network.yaml');
  expect(code).toBe(1);
  expect(stdout).toContain('-spec.bridge: br-vm\n+spec.bridge: br-other\n');
  expect(stderr).toBe('network/plant: spec.bridge cannot be changed on an existing network; apply refuses it\n');
});

test('errors are never exit code 1', async () => {
  expect((await lab.cli('diff')).code).toBe(2);
  lab.file('bad.yaml', 'kind: Vm');
  expect((await lab.cli('diff', '-f', 'bad.yaml')).code).toBe(2);
  for (const controller of lab.controllers) controller.refuses = { status: 7, info: { reason: 'PERMISSION_DENIED' } };
  expect((await lab.cli('diff', '-f', 'all.yaml')).code).toBe(2);
  for (const controller of lab.controllers) controller.kill();
  expect((await lab.cli('diff', '-f', 'all.yaml')).code).toBe(5);
});

test('apply --if-revision: only what was looked at', async () => {
  await lab.cli('apply', '-f', 'all.yaml');
  lab.file('vm.yaml', GUEST.replace('256MiB', '512MiB'));
  const { resources } = JSON.parse((await lab.cli('diff', '-f', 'vm.yaml', '-o', 'json')).stdout) as {
    resources: { revision: string }[];
  };
  const revision = resources[0]?.revision ?? '';
  expect((await lab.cli('apply', '-f', 'vm.yaml', '--if-revision', '7')).code).toBe(4);
  expect((await lab.cli('apply', '-f', 'all.yaml', '--if-revision', revision)).stderr).toContain(
    'error: --if-revision needs one document\nwhy: 2 are given',
  );
  expect((await lab.cli('apply', '-f', 'vm.yaml', '--if-revision', revision)).code).toBe(0);
});
