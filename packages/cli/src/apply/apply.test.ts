// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';

const example = (name: string) => readFileSync(new URL(`../../../../examples/${name}`, import.meta.url), 'utf8');
const GUEST = example('guest-vm.yaml');
const VOLUME = 'apiVersion: busbar.v1\nkind: Volume\nname: archive\nspec: {sizeBytes: 1GiB}\n';

// Whole commands on a machine that may be busy with other tests: a limit for hanging, not a measure.
vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab();
  lab.file('guest.img', Buffer.alloc(4096, 'x'));
  await lab.cli('image', 'import', 'busbar-guest', 'guest.img');
  // The VM first: apply makes the network before it all the same.
  lab.file('all.yaml', `${GUEST}---\n${example('network.yaml')}---\n${VOLUME}`);
});
afterEach(() => lab.end());

test('creates, then changes nothing', async () => {
  expect(await lab.cli('apply', '-f', 'all.yaml')).toMatchObject({
    code: 0,
    stdout: 'network/plant created\nvolume/archive created\nvm/guest-1 created\n',
  });
  lab.cluster.calls.length = 0;
  expect(await lab.cli('apply', '-f', 'all.yaml')).toMatchObject({
    code: 0,
    stdout: 'network/plant unchanged\nvolume/archive unchanged\nvm/guest-1 unchanged\n',
  });
  expect(lab.cluster.calls.every((call) => call.startsWith('Get'))).toBe(true);
});

test('updates what differs, under the revision that it compared with, and keeps the rest', async () => {
  await lab.cli('apply', '-f', 'all.yaml');
  const changed = GUEST.replace('256MiB', '512MiB').replace('plant: demo', 'plant: north');
  lab.file('vm.yaml', changed.replace(/ {2}machineType: q35\n/, ''));
  expect((await lab.cli('apply', '-f', 'vm.yaml', '--dry-run')).stdout).toBe(
    'vm/guest-1 would be updated (labels, spec.memoryBytes) (dry run: nothing was changed)\n',
  );
  expect((await lab.cli('apply', '-f', 'vm.yaml')).stdout).toBe(
    'vm/guest-1 updated (labels, spec.memoryBytes); acts at the next start: busbar vm restart guest-1\n',
  );
  const vm = lab.cluster.vms.get('guest-1');
  expect(vm?.spec).toMatchObject({
    memoryBytes: 536870912n,
    machineType: 'MACHINE_TYPE_Q35',
    disks: [{ name: 'boot' }, { name: 'data' }],
  });
  expect(vm?.meta?.labels).toEqual({ plant: 'north' });
  expect((await lab.cli('apply', '-f', 'vm.yaml')).stdout).toBe('vm/guest-1 unchanged\n');
});

test('cloud-init data that were exported without being shown are left alone', async () => {
  await lab.cli('apply', '-f', 'all.yaml');
  const exported = GUEST.replace(
    /cloudInit:[\s\S]*$/,
    'cloudInit: {userData: "", networkConfig: "", redacted: true}\n',
  );
  lab.file('vm.yaml', exported);
  expect((await lab.cli('apply', '-f', 'vm.yaml')).stdout).toBe('vm/guest-1 unchanged\n');
  lab.file('vm.yaml', exported.replace('256MiB', '512MiB'));
  expect((await lab.cli('apply', '-f', 'vm.yaml')).stdout).toContain('vm/guest-1 updated (spec.memoryBytes)');
  expect(lab.cluster.vms.get('guest-1')?.spec?.cloudInit?.userData).toContain('hostname: guest-1');
});

test('a change of the run policy starts or stops, and waits for it', async () => {
  await lab.cli('apply', '-f', 'all.yaml');
  lab.file('vm.yaml', GUEST.replace('runPolicy: running', 'runPolicy: stopped'));
  const { stdout } = await lab.cli('apply', '-f', 'vm.yaml', '-o', 'json');
  expect(JSON.parse(stdout)).toMatchObject({
    dryRun: false,
    results: [
      { kind: 'Vm', name: 'guest-1', result: 'updated', changed: ['spec.runPolicy'], operation: { method: 'StopVm' } },
    ],
  });
  expect(lab.cluster.vms.get('guest-1')?.status?.phase).toBe('VM_PHASE_STOPPED');
});

test('volumes grow; what cannot change is refused', async () => {
  await lab.cli('apply', '-f', 'all.yaml');
  lab.file('volume.yaml', VOLUME.replace('1GiB', '2GiB'));
  expect((await lab.cli('apply', '-f', 'volume.yaml')).stdout).toBe('volume/archive updated (spec.sizeBytes)\n');
  lab.file('network.yaml', example('network.yaml').replace('br-vm', 'br-other'));
  expect(await lab.cli('apply', '-f', 'network.yaml')).toEqual({
    code: 4,
    stdout: '',
    stderr: `error: cannot apply network plant
why: spec.bridge differs and cannot be changed on an existing network
do: put the former value back, or delete the network and apply again
`,
  });
});

test('one wrong document: nothing at all is sent', async () => {
  lab.file('bad.yaml', `${VOLUME}---\n${GUEST.replace('memoryBytes', 'memoryByte')}`);
  lab.cluster.calls.length = 0;
  const { code, stderr } = await lab.cli('apply', '-f', 'bad.yaml');
  expect(code).toBe(2);
  expect(stderr).toContain('error: bad.yaml is not valid, nothing was changed\nwhy: bad.yaml:');
  expect(stderr).toContain('spec.memoryByte: unknown field, did you mean memoryBytes?');
  expect(lab.cluster.calls).toEqual([]);
});

test('from stdin; a failed VM is told after the others were made', async () => {
  lab.cluster.failNext = { reason: 'QEMU_FAILED', message: 'qemu: boom', hint: '', fields: [] };
  const command = lab.start(['apply', '-f', '-']);
  command.stdin.end(`${VOLUME.replace('archive', 'a1')}---\n${VOLUME.replace('archive', 'a2')}`);
  const { code, stdout, stderr } = await command.ended;
  expect({ code, stdout }).toEqual({ code: 1, stdout: 'volume/a2 created\n' });
  expect(stderr).toContain('error: cannot apply volume a1\nwhy: step prepare: qemu: boom (QEMU_FAILED)');
});

test('somebody else changes it meanwhile: compared again', async () => {
  await lab.cli('apply', '-f', 'all.yaml');
  lab.file('vm.yaml', GUEST.replace('256MiB', '512MiB'));
  lab.cluster.staleOnce = true;
  expect((await lab.cli('apply', '-f', 'vm.yaml')).code).toBe(0);
  expect(lab.cluster.vms.get('guest-1')?.spec?.memoryBytes).toBe(536870912n);
});
