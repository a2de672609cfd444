// SPDX-License-Identifier: Apache-2.0
import { beforeEach, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';

vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab();
  lab.cluster.addHost('host1', 0);
  await lab.cli('vm', 'create', 'web', '--vcpus', '1', '--memory', '64MiB');
  return () => lab.end();
});

test('why a VM has no place, and what would make room', async () => {
  expect((await lab.cli('explain', 'placement', 'web')).stdout).toMatchInlineSnapshot(`
    "no host fits now
      host1  memory: needs 4192 MiB, 1024 MiB free
    each of these would make room:
      move vm web from host1 to host2; it would then run on host1
      ask for 2 vCPUs and 1GiB; it would then run on host1
    "
  `);
});

test('a drill says who goes where and who stays down', async () => {
  expect((await lab.cli('drill', 'host1')).stdout).toMatchInlineSnapshot(`
    "if host1 died now, 1 VM would be restarted elsewhere and 1 VM would stay down
    restarts begin after 3.0 s: its lease has certainly ended (2.8 s), storage refuses it (0.3 s)

    VM       GOES TO  RUNS AGAIN AFTER  EXACTLY
    scada-1  host1               3.5 s  -

    stay down:
      web: not highly available (spec.ha.enabled is false): it waits for its host
    "
  `);
});

test('what is missing or too much is said', async () => {
  expect((await lab.cli('explain', 'placement')).stderr).toContain('no VM is named');
  expect((await lab.cli('explain', 'vm', 'web')).stderr).toContain('only a placement has a VM behind it');
  expect((await lab.cli('explain', 'placement', 'nobody')).code).toBe(3);
  expect((await lab.cli('drill', 'nowhere')).code).toBe(3);
});
