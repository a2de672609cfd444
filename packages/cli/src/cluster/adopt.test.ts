// SPDX-License-Identifier: Apache-2.0
import { AdoptionAction, AdoptionPlan } from '@busbar/proto/gen/busbar/v1/cluster';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { beforeEach, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';

vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab();
  return () => lab.end();
});

const vm = (name: string, id = '5f0c3a0e-2f0b-4a7a-9d57-2a0d6c6f0001') => ({ kind: 'vm', id, name });
const PLAN = AdoptionPlan.fromPartial({
  behind: true,
  signs: ['host2 runs VM "scada-1" with epoch 2, the store has 1'],
  hosts: [
    { host: 'host1', heard: true, domains: 1 },
    { host: 'host2', heard: true, domains: 2, message: 'its hypervisor does not answer: what it ran last counts' },
    { host: 'host3', message: 'its agent is not heard' },
  ],
  vms: [
    {
      vm: vm('scada-1'),
      recordedPhase: VmPhase.RUNNING,
      recordedHost: 'host1',
      recordedEpoch: 1n,
      found: [{ host: 'host2', epoch: 2n }],
      action: AdoptionAction.TAKE_OVER,
      message: 'it was to be stopped or deleted, and stays',
    },
    { vm: vm('web'), recordedPhase: VmPhase.STOPPED, action: AdoptionAction.START, message: 'it runs nowhere' },
    {
      vm: vm(''),
      found: [{ host: 'host2', epoch: 1n }],
      action: AdoptionAction.LEAVE_ALONE,
      message: 'it runs without a record: save its data, end it with virsh, create it anew\u001b[2J',
    },
  ],
  epochFloor: 1_000_002n,
});

test('shows what would be recorded, in lines that fit', async () => {
  lab.cluster.adoption = PLAN;
  const { stdout } = await lab.cli('cluster', 'adopt', '--plan');
  expect(stdout).toMatchInlineSnapshot(`
    "the cluster store went back in time:
      host2 runs VM "scada-1" with epoch 2, the store has 1
    hosts that report: host1 (1 VM), host2 (2 VMs)
      host2: its hypervisor does not answer: what it ran last counts
      host3: its agent is not heard

    VM        RECORDED    RUNS ON    BECOMES          NOTE
    scada-1   host1 (1)   host2 (2)  taken over       it was to be stopped or deleted, and stays
    web       stopped     no host    will be started  it runs nowhere
    5f0c3a0…  not at all  host2 (1)  left alone       it runs without a record: save its data, end it w…

    without a record:
      5f0c3a0e-2f0b-4a7a-9d57-2a0d6c6f0001 on host2

    hosts that are not listed are not known: is every host of the plant there?
    afterwards every start has an epoch above 1000002; "busbar cluster adopt --run" does it
    "
  `);
  for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  expect(stdout).not.toContain('\u001b');
  expect(lab.cluster.adoptions).toMatchObject([{ validateOnly: true, withoutHosts: [], keep: [] }]);
});

test('says what stands in the way, and what to do about it', async () => {
  const hint =
    'bring it back; or, if it is powered off or will never reach the storage again, say so with --without host3';
  lab.cluster.adoption = AdoptionPlan.fromPartial({
    ...PLAN,
    vms: [],
    obstacles: [{ reason: 'HOST_SILENT', message: 'host3 may run VMs and is silent: its agent is not heard', hint }],
  });
  const { stdout } = await lab.cli('cluster', 'adopt', '--plan');
  expect(stdout).toContain(
    '\nin the way:\n  host3 may run VMs and is silent: its agent is not heard\n    do: bring it back; or, if',
  );
  for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
});

test('passes on what the operator decides', async () => {
  lab.cluster.adoption = PLAN;
  const run = ['cluster', 'adopt', '--run', '--request-id', 'r1'];
  const { stdout, code } = await lab.cli(...run, '--without', 'host3', '--without', 'host4', '--keep', 'a=b=host2');
  expect({ stdout, code }).toEqual({ stdout: 'cluster adopted\n', code: 0 });
  expect(lab.cluster.adoptions).toMatchObject([
    {
      validateOnly: false,
      requestId: 'r1',
      withoutHosts: ['host3', 'host4'],
      keep: [{ vm: 'a=b', host: 'host2' }],
    },
  ]);
});

test('a cluster whose store did not go back in time is told so, and that is no failure', async () => {
  for (const how of ['--plan', '--run']) {
    const { stdout, code } = await lab.cli('cluster', 'adopt', how);
    expect(code).toBe(0);
    expect(stdout).toContain('there is nothing to adopt');
  }
});

test('asks what is meant before anything is sent', async () => {
  for (const wrong of [[], ['--plan', '--run'], ['--run', '--keep', 'scada-1'], ['--run', '--keep', '=host1']])
    expect((await lab.cli('cluster', 'adopt', ...wrong)).code).toBe(2);
  expect(lab.cluster.adoptions).toEqual([]);
});
