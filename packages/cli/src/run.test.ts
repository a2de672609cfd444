// SPDX-License-Identifier: Apache-2.0
/** Whole commands: what they print, what they send, how they end. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from './testing/cli.ts';

// Whole commands on a machine that may be busy with other tests: a limit for hanging, not a measure.
vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab();
  for (const [index, host] of ['host1', 'host2', 'host3'].entries()) lab.cluster.addHost(host, index);
  await lab.cli('network', 'create', 'plant', '--bridge', 'br-vm');
});
afterEach(() => lab.end());

const CREATE = [
  'vm',
  'create',
  'web',
  '--vcpus',
  '2',
  '--memory',
  '512MiB',
  '--network',
  'plant',
  '--disk-size',
  '1GiB',
];

describe('tables', () => {
  test('hosts', async () => {
    const { code, stdout, stderr } = await lab.cli('host', 'ls');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatchInlineSnapshot(`
      "NAME   STATE  ROLE        VMS  CPUS        MEMORY  NUMA  LIBVIRT  QEMU   AGENT  MESSAGE
      host1  ready  hypervisor    0   0/8      0B/32GiB     2  9.0.0    7.2.0  0.1.0  -
      host2  ready  hypervisor    1   1/8  512MiB/32GiB     2  9.0.0    7.2.0  0.1.0  -
      host3  ready  hypervisor    2   2/8    1GiB/32GiB     2  9.0.0    7.2.0  0.1.0  -
      "
    `);
  });

  test('a VM with a long message keeps within 100 columns', async () => {
    await lab.cli(...CREATE);
    const vm = lab.cluster.vms.get('web');
    if (vm?.status !== undefined) vm.status.message = `no room: ${'host1 lacks memory, '.repeat(10)}\u001b[2J`;
    const { stdout } = await lab.cli('vm', 'list');
    expect(stdout).toMatchInlineSnapshot(`
      "NAME  PHASE    HOST   VCPUS  MEMORY  AGE  MESSAGE
      web   running  host1      2  512MiB   2h  no room: host1 lacks memory, host1 lacks memory, host1 la…
      "
    `);
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });

  test('cluster status', async () => {
    expect((await lab.cli('cluster', 'status')).stdout).toMatchInlineSnapshot(`
      "cluster:      lab
      leader:       host1 (term 42)
      store:        healthy
      storage:      healthy (rbd, 2GiB of 3GiB free)
      hosts:        3 ready
      vms:          0 running
      alarms:       none
      controllers:  host1 10.77.0.11:7800
      answered by:  host1, version 0.1.0
      "
    `);
    expect((await lab.cli('cluster', 'get')).stdout).toMatchInlineSnapshot(`
      "NAME  LEADER  ANSWERED BY  STORE    STORAGE  HOSTS    VMS
      lab   host1   host1        healthy  healthy  3 ready  0 running
      "
    `);
  });

  test('no colours without a terminal; colours on one; none with NO_COLOR', async () => {
    const onTerminal = async (of: TestLab) =>
      (await of.start(['host', 'list'], ({ stdout }) => Object.assign(stdout, { isTTY: true })).ended).stdout;
    expect((await lab.cli('host', 'list')).stdout).not.toContain('\u001b');
    expect(await onTerminal(lab)).toContain('\u001b[32mready\u001b[0m');
    const plain = await startLab(1, { NO_COLOR: '1' });
    plain.cluster.addHost('host1', 0);
    expect(await onTerminal(plain)).not.toContain('\u001b');
    plain.end();
  });
});

describe('json and yaml', () => {
  test('lists are the API’s response, also when empty, over all pages', async () => {
    expect(JSON.parse((await lab.cli('vm', 'list', '-o', 'json')).stdout)).toMatchObject({ vms: [] });
    for (const name of ['a', 'b', 'c']) await lab.cli('vm', 'create', name, '--vcpus', '1', '--memory', '64MiB');
    lab.cluster.pageSize = 2;
    const { vms } = JSON.parse((await lab.cli('-o', 'json', 'vm', 'list')).stdout) as {
      vms: { meta: { name: string } }[];
    };
    expect(vms.map(({ meta }) => meta.name)).toEqual(['a', 'b', 'c']);
    expect(vms[0]).toMatchObject({ spec: { memoryBytes: '67108864', runPolicy: 'RUN_POLICY_RUNNING' } });
  });

  test('get is the resource', async () => {
    expect((await lab.cli('network', 'get', 'plant', '-o', 'yaml')).stdout).toContain('bridge: br-vm');
    const { stdout } = await lab.cli('network', 'get', 'plant', '-o', 'json');
    expect(JSON.parse(stdout)).toMatchObject({ meta: { name: 'plant' }, spec: { kind: 'BRIDGE_KIND_LINUX' } });
  });
});

describe('changes', () => {
  test('wait for the operation, steps on stderr, result on stdout', async () => {
    const { code, stdout, stderr } = await lab.cli(...CREATE);
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'vm/web created\n' });
    expect(stderr).toContain('  prepare: done in 1.5 s\n');
    expect(lab.cluster.vms.get('web')?.spec).toMatchObject({ cpu: { vcpus: 2 }, memoryBytes: 536870912n });
  });

  test('json is the response with the operation as it ended', async () => {
    const answer = JSON.parse((await lab.cli(...CREATE, '-o', 'json')).stdout) as unknown;
    expect(answer).toMatchObject({
      operation: { state: 'OPERATION_STATE_SUCCEEDED' },
      vm: { meta: { name: 'web' }, status: { phase: 'VM_PHASE_RUNNING' } },
    });
  });

  test('--no-wait prints the id, operation wait takes it', async () => {
    const { stdout } = await lab.cli(...CREATE, '--no-wait');
    expect(stdout).toMatch(/^op-id-\d+\n$/);
    const waited = await lab.cli('operation', 'wait', stdout.trim());
    expect(waited).toMatchObject({ code: 0, stdout: `operation/${stdout.trim()} succeeded\n` });
  });

  test('--dry-run changes nothing and shows the placement', async () => {
    expect(await lab.cli(...CREATE, '--dry-run')).toMatchObject({
      code: 0,
      stdout: `vm/web would be created (dry run: nothing was changed)
it would run on host1:
  host1: fits
  host2: memory: 1GiB wanted, 512MiB free
`,
    });
    expect(lab.cluster.vms.size).toBe(0);
  });

  test('--request-id makes a repeat harmless', async () => {
    await lab.cli(...CREATE, '--request-id', 'r1');
    expect(await lab.cli(...CREATE, '--request-id', 'r1')).toMatchObject({ code: 0, stdout: 'vm/web created\n' });
  });

  test('stop, start, restart, delete', async () => {
    await lab.cli(...CREATE);
    expect((await lab.cli('vm', 'stop', 'web', '--grace', '2min')).stdout).toBe('vm/web stopped\n');
    expect((await lab.cli('vm', 'start', 'web')).stdout).toBe('vm/web started\n');
    expect((await lab.cli('vm', 'restart', 'web', '--force')).stdout).toBe('vm/web restarted\n');
    expect((await lab.cli('vm', 'rm', 'web')).stdout).toBe('vm/web deleted\n');
    expect((await lab.cli('vm', 'list')).stdout).toBe('no vms\n');
  });

  test('labels and cordon', async () => {
    await lab.cli('host', 'label', 'host1', 'rack=a3', 'old=x');
    await lab.cli('host', 'label', 'host1', 'old-');
    expect(lab.cluster.hosts.get('host1')?.meta?.labels).toEqual({ rack: 'a3' });
    expect((await lab.cli('host', 'cordon', 'host1')).stdout).toBe('host/host1 cordoned\n');
    expect((await lab.cli('host', 'list')).stdout).toContain('ready,cordoned');
  });

  test('what placement is told of a host', async () => {
    const set = (...args: string[]) => lab.cli('host', 'set', 'host1', ...args);
    const spec = () => lab.cluster.hosts.get('host1')?.spec;
    expect((await set('--reserved-cpus', '0-1,8', '--reserved-memory', '2GiB')).stdout).toBe('host/host1 set\n');
    await set('--rack', 'a3', '--power-feed', 'ups-1');
    await set(
      '--power-feed',
      'none',
      '--device-class',
      'nic=0000:3b:00.1,8086:1521',
      '--device-class',
      'gps=1234:5678',
    );
    await set('--device-class', 'gps=none');
    expect(spec()).toEqual({
      unschedulable: false,
      reservedCpus: [0, 1, 8],
      reservedMemoryBytes: 2n * 1024n ** 3n,
      failureDomains: { rack: 'a3', powerFeed: '', ringSegment: '' },
      deviceClasses: [{ name: 'nic', devices: ['0000:3b:00.1', '8086:1521'] }],
    });
    await set('--reserved-cpus', 'none', '--reserved-memory', 'none');
    expect(spec()).toMatchObject({ reservedCpus: [], reservedMemoryBytes: 0n });
    for (const args of [[], ['--reserved-cpus', 'all'], ['--device-class', 'nic']])
      expect((await set(...args)).code).toBe(2);
  });

  test('volumes', async () => {
    expect((await lab.cli('volume', 'create', 'archive', '--size', '1GiB')).stdout).toBe('volume/archive created\n');
    expect((await lab.cli('volume', 'resize', 'archive', '2GiB')).code).toBe(0);
    expect((await lab.cli('volume', 'ls')).stdout).toContain('2GiB');
    expect((await lab.cli('volume', 'delete', 'archive')).stdout).toBe('volume/archive deleted\n');
  });
});

describe('errors in three lines, with the exit code', () => {
  test('3 not found', async () => {
    expect(await lab.cli('vm', 'get', 'nope')).toEqual({
      code: 3,
      stdout: '',
      stderr: `error: cannot get vm nope
why: there is no vm "nope" (VM_NOT_FOUND)
do: busbar vm list shows what there is
`,
    });
  });

  test('3 as JSON', async () => {
    const { code, stderr } = await lab.cli('vm', 'get', 'nope', '-o', 'json');
    expect(code).toBe(3);
    expect(JSON.parse(stderr)).toEqual({
      error: 'cannot get vm nope',
      why: 'there is no vm "nope" (VM_NOT_FOUND)',
      do: 'busbar vm list shows what there is',
      reason: 'VM_NOT_FOUND',
      exitCode: 3,
      fields: [],
    });
  });

  test('4 conflict: name taken, stale revision', async () => {
    await lab.cli(...CREATE);
    expect((await lab.cli(...CREATE)).code).toBe(4);
    expect((await lab.cli('vm', 'delete', 'web', '--if-revision', '1')).code).toBe(4);
  });

  test('1 refused, with the fields', async () => {
    const { code, stderr } = await lab.cli('vm', 'create', 'web', '--vcpus', '1', '--memory', '1000');
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: `error: cannot create VM web
why: the VM is not valid (INVALID)
     spec.memoryBytes: is 1000, expected a multiple of 1 MiB
do: correct the field
`,
    });
  });

  test('1 the operation failed', async () => {
    lab.cluster.failNext = { reason: 'QEMU_FAILED', message: 'qemu: no such machine', hint: 'choose q35', fields: [] };
    const { code, stderr } = await lab.cli(...CREATE);
    expect(code).toBe(1);
    expect(stderr).toContain(
      'error: cannot create VM web\nwhy: step prepare: qemu: no such machine (QEMU_FAILED)\ndo: choose q35\n',
    );
  });

  test.each<[string[], string]>([
    [
      ['vm', 'lst'],
      'error: unknown command "lst"\nwhy: busbar vm has no such command\ndo: did you mean busbar vm list?\n',
    ],
    [['vmm'], 'error: unknown command "vmm"\nwhy: busbar has no such command\ndo: did you mean busbar vm?\n'],
    [
      ['vm', 'frobnicate'],
      'error: unknown command "frobnicate"\nwhy: busbar vm has no such command\ndo: busbar vm --help lists',
    ],
    [
      ['vm', 'stop', 'a', '--fore'],
      'error: unknown option "--fore"\nwhy: busbar vm stop has no such option\ndo: did you mean --force?\n',
    ],
    [['vm', 'stop'], 'error: the vm is missing\nwhy: the command is busbar vm stop <vm>\ndo: busbar vm stop --help'],
    [['vm', 'stop', 'a', 'b'], 'error: too many words for busbar vm stop\nwhy: Expected 1 argument but got 2: a, b.\n'],
    [['vm', 'list', '--host'], 'error: the value of --host <host> is missing\n'],
    [
      ['vm', 'list', '-o', 'jason'],
      'error: --output jason is not allowed\nwhy: choices are table, wide, json, jsonl, yaml, name\ndo: did you mean json?\n',
    ],
    [['completion', 'tcsh'], 'error: shell tcsh is not allowed\nwhy: choices are bash, zsh, fish\n'],
    [['vm', 'create', 'A;b', '--vcpus', '1', '--memory', '1MiB'], 'error: "A;b" is no name'],
    [
      ['vm', 'create', 'a', '--vcpus', '1', '--memory', '512mb'],
      'error: --memory 512mb is not allowed\nwhy: "512mb" has the unknown unit "mb"\ndo: write MiB',
    ],
    [['vm', 'create', 'a', '--vcpus', 'two', '--memory', '1MiB'], 'error: --vcpus two is not allowed'],
    [['vm', 'create', 'a', '-f', 'x.yaml'], 'error: -f takes everything from the file\nwhy: the name a is given too'],
    [['apply'], 'error: there is nothing to apply'],
    [['apply', '-f', 'missing.yaml'], 'error: cannot read missing.yaml\nwhy: there is no such file'],
    [['vm', 'list', '--context', 'other'], 'error: there is no context "other"\nwhy: contexts are lab'],
    [['vm', 'list', '--timeout', 'soon'], 'error: --timeout soon is no duration'],
    [['vm', 'list', '--endpoint', 'a b'], 'error: endpoint "a b" is no address'],
  ])('2 usage: %j', async (args, stderr) => {
    const result = await lab.cli(...args);
    expect(result.code).toBe(2);
    expect(result.stderr).toContain(stderr);
    expect(result.stderr.trim().split('\n').length).toBeLessThanOrEqual(3);
  });
});

test('version works without a cluster', async () => {
  expect((await lab.cli('version')).stdout).toBe('busbar 0.1.0\ncontroller 0.1.0\n');
  lab.end();
  expect((await lab.cli('version')).stdout).toBe('busbar 0.1.0\ncontroller does not answer\n');
});
