// SPDX-License-Identifier: Apache-2.0
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';
import { changes } from '../testing/fake-cluster.ts';
import { put } from '../testing/fake-vms.ts';

vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab(2);
  await lab.cli('vm', 'create', 'web', '--vcpus', '1', '--memory', '64MiB', '--stopped');
});
afterEach(() => lab.end());

const watched = async () => {
  while (changes.listenerCount('change') === 0) await new Promise((done) => setTimeout(done, 10));
};

function become(phase: VmPhase, message = ''): void {
  const vm = lab.cluster.vms.get('web');
  if (vm?.status === undefined) throw new Error('no vm');
  Object.assign(vm.status, { phase, message });
  put(lab.cluster, structuredClone(vm));
}

test('holds already', async () => {
  expect(await lab.cli('wait', 'vm/web', '--for', 'phase=stopped')).toEqual({
    code: 0,
    stdout: 'vm/web is phase=stopped\n',
    stderr: '',
  });
});

test('comes to hold; -o json is the resource', async () => {
  const command = lab.start(['wait', 'vm/web', '--for', 'phase=running', '-o', 'json']);
  await watched();
  become(VmPhase.STARTING);
  become(VmPhase.RUNNING);
  const { code, stdout } = await command.ended;
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ meta: { name: 'web' }, status: { phase: 'VM_PHASE_RUNNING' } });
});

test('the controller that is watched dies: goes on at the next', async () => {
  const command = lab.start(['wait', 'vm/web', '--for', 'phase=running']);
  await watched();
  lab.controllers[0]?.kill();
  await command.stderr.match(/trying the next controller/);
  await watched();
  become(VmPhase.RUNNING);
  expect(await command.ended).toMatchObject({ code: 0, stdout: 'vm/web is phase=running\n' });
});

test('out of time: 5, and the state it was in', async () => {
  const command = lab.start(['wait', 'vm/web', '--for', 'phase=running,memory>1MiB', '--timeout', '1500ms']);
  await watched();
  become(VmPhase.PENDING, 'no host has room');
  expect(await command.ended).toEqual({
    code: 5,
    stdout: '',
    stderr: `error: cannot wait for phase=running,memory>1MiB of vm/web in time
why: the time (1500ms) is over; it was phase=pending,memory=67108864 (no host has room)
do: try again with a longer --timeout
`,
  });
});

describe('deleted', () => {
  test('is awaited', async () => {
    const command = lab.start(['wait', 'vm/web', '--for', 'deleted']);
    await watched();
    await lab.cli('vm', 'delete', 'web');
    expect(await command.ended).toMatchObject({ code: 0, stdout: 'vm/web is deleted\n' });
    expect(await lab.cli('wait', 'vm/web', '--for', 'deleted')).toMatchObject({ code: 0 });
  });

  test('ends the waiting for something else with 3', async () => {
    const command = lab.start(['wait', 'vm/web', '--for', 'phase=running']);
    await watched();
    await lab.cli('vm', 'delete', 'web');
    expect(await command.ended).toMatchObject({
      code: 3,
      stderr: `error: cannot wait for phase=running of vm/web
why: vm/web: it was deleted meanwhile
do: busbar vm list shows what there is
`,
    });
    expect((await lab.cli('wait', 'vm/web', '--for', 'phase=running')).code).toBe(3);
  });
});

describe('operation', () => {
  test('waits for all that are under way', async () => {
    await lab.cli('vm', 'start', 'web', '--no-wait');
    await lab.cli('vm', 'stop', 'web', '--no-wait');
    const { code, stdout } = await lab.cli('wait', 'vm/web', '--for', 'operation');
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'vm/web has no operation under way any more\n' });
    expect((await lab.cli('wait', 'vm/web', '--for', 'operation')).stdout).toBe('vm/web has no operation under way\n');
  });

  test('fails when the last one failed', async () => {
    await lab.cli('vm', 'start', 'web', '--no-wait');
    lab.cluster.failNext = { reason: 'QEMU_FAILED', message: 'qemu: boom', hint: '', fields: [] };
    const { code, stderr } = await lab.cli('wait', 'vm/web', '--for', 'operation');
    expect(code).toBe(1);
    expect(stderr).toContain('error: cannot StartVm vm/web\nwhy: step prepare: qemu: boom (QEMU_FAILED)');
  });
});

test.each([
  [['vm/web', '--for', 'phse=running'], 'error: --for is not understood at character 1', 'did you mean phase?'],
  [['vm/web', '--for', 'delete'], 'error: --for delete is not understood', 'did you mean deleted?'],
  [['web', '--for', 'deleted'], 'error: "web" is no resource', 'write e.g. vm/web'],
  [['vms/web', '--for', 'deleted'], 'error: "vms/web" is no resource', 'write vm/web'],
  [['vm/web'], 'error: --for <condition> is missing', 'busbar wait --help'],
])('%j is refused', async (args, what, hint) => {
  const { code, stderr } = await lab.cli('wait', ...args);
  expect(code).toBe(2);
  expect(stderr).toContain(what);
  expect(stderr).toContain(hint);
});
