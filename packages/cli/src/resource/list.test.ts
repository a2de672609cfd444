// SPDX-License-Identifier: Apache-2.0
/** What every list and watch has in common: formats, columns, order, filter, width. */
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';
import { changes } from '../testing/fake-cluster.ts';
import { put } from '../testing/fake-vms.ts';
import { KINDS, type KindName, kindEntry } from './kinds.ts';

vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab();
  for (const [name, vcpus, memory, label] of [
    ['web', '4', '512MiB', 'plant=north'],
    ['db2', '2', '2GiB', 'plant=south'],
    ['db10', '1', '1GiB', 'plant=south'],
  ] as const) {
    await lab.cli('vm', 'create', name, '--vcpus', vcpus, '--memory', memory, '--label', label);
  }
  await lab.cli('vm', 'stop', 'db2');
});
afterEach(() => lab.end());

const stdout = async (...args: string[]) => {
  const result = await lab.cli(...args);
  expect(result).toMatchObject({ code: 0, stderr: '' });
  return result.stdout;
};

describe('formats', () => {
  test('wide has more columns and cuts nothing', async () => {
    const vm = lab.cluster.vms.get('web');
    if (vm?.status !== undefined) vm.status.message = 'x'.repeat(150);
    const text = await stdout('vm', 'list', '-o', 'wide');
    expect(text.split('\n')[0]).toMatch(
      /^NAME +PHASE .* WANTED +HA +DISKS +NICS +EPOCH +MESSAGE +LABELS +REVISION +ID$/,
    );
    expect(text).toContain('x'.repeat(150));
    expect(text).toContain('plant=north');
  });

  test('jsonl is one resource per line, name is kind/name', async () => {
    const lines = (await stdout('vm', 'list', '-o', 'jsonl')).trim().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { meta: { name: string } }).meta.name)).toEqual([
      'web',
      'db2',
      'db10',
    ]);
    expect(await stdout('vm', 'list', '-o', 'name')).toBe('vm/web\nvm/db2\nvm/db10\n');
    expect(await stdout('vm', 'get', 'web', '-o', 'name')).toBe('vm/web\n');
    expect((await stdout('vm', 'get', 'web', '-o', 'jsonl')).split('\n')).toHaveLength(2);
    expect((await lab.cli('vm', 'stop', 'web', '-o', 'name')).stdout).toBe('vm/web\n');
    expect((await lab.cli('vm', 'start', 'vm/web', '--no-wait', '-o', 'name')).stdout).toMatch(
      /^operation\/op-id-\d+\n$/,
    );
  });

  test('-o name where nothing has a name', async () => {
    expect(await lab.cli('version', '-o', 'name')).toMatchObject({ code: 2, stdout: '' });
  });
});

describe('columns', () => {
  test('by name, by path, with lists and labels', async () => {
    expect(
      await stdout('vm', 'list', '--columns', 'name,epoch,spec.cpu.vcpus,labels.plant,spec.memoryBytes,status.phase'),
    ).toBe(`NAME  EPOCH  SPEC.CPU.VCPUS  LABELS.PLANT  SPEC.MEMORYBYTES  STATUS.PHASE
web       0               4  north                   512MiB  running
db2       0               2  south                     2GiB  stopped
db10      0               1  south                     1GiB  running
`);
  });

  test('no headers, also when there is nothing', async () => {
    expect(await stdout('vm', 'list', '--columns', 'name', '--no-headers')).toBe('web\ndb2\ndb10\n');
    expect(await stdout('vm', 'list', '--filter', 'name=x', '--no-headers')).toBe('');
    expect(await stdout('vm', 'list', '--filter', 'name=x')).toBe('no vms match\n');
    expect(await stdout('image', 'list')).toBe('no images\n');
  });

  test.each([
    [['--columns', 'nam'], '--columns nam is not possible', 'there is no column "nam"', 'did you mean name?'],
    [
      ['--columns', 'spec.disk'],
      '--columns spec.disk is not possible',
      'no field "disk" in spec',
      'did you mean spec.disks?',
    ],
    [['--columns', 'name', '-o', 'json'], '--columns is for tables', '', 'leave --columns out'],
    [['--sort', 'phse'], '--sort phse is not possible', 'there is no column "phse"', 'did you mean phase?'],
    [['--filter', 'phse=x'], '--filter is not understood at character 1', '', 'did you mean phase?'],
  ])('%j is refused before anything is sent', async (args, what, why, hint) => {
    lab.cluster.calls.length = 0;
    const { code, stderr } = await lab.cli('vm', 'list', ...args, '-o', args.includes('json') ? 'json' : 'table');
    expect(code).toBe(2);
    for (const text of [what, why, hint]) expect(stderr).toContain(text);
    expect(lab.cluster.calls).toEqual([]);
  });
});

describe('order and filter', () => {
  const names = async (...args: string[]) => (await stdout('vm', 'list', '-o', 'name', ...args)).trim().split('\n');

  test.each([
    [
      ['--sort', 'name'],
      ['vm/db2', 'vm/db10', 'vm/web'],
    ],
    [
      ['--sort', '-name'],
      ['vm/web', 'vm/db10', 'vm/db2'],
    ],
    [
      ['--sort', 'memory'],
      ['vm/web', 'vm/db10', 'vm/db2'],
    ],
    [
      ['--sort', '-spec.cpu.vcpus'],
      ['vm/web', 'vm/db2', 'vm/db10'],
    ],
    [
      ['--sort', 'labels.plant'],
      ['vm/web', 'vm/db2', 'vm/db10'],
    ],
    [
      ['--filter', 'phase=running'],
      ['vm/web', 'vm/db10'],
    ],
    [['--filter', 'labels.plant=south,memory>1GiB'], ['vm/db2']],
    [
      ['--filter', 'name~db', '--sort', '-vcpus'],
      ['vm/db2', 'vm/db10'],
    ],
  ])('%j', async (args, expected) => expect(await names(...args)).toEqual(expected));

  test('json keeps its shape', async () => {
    const json = JSON.parse(await stdout('vm', 'list', '-o', 'json', '--filter', 'name=web')) as { vms: unknown[] };
    expect(json.vms).toHaveLength(1);
    expect(json).toHaveProperty('revision');
  });
});

describe('watch', () => {
  test('orders what exists, shows only what matches, and once more what no longer does', async () => {
    const command = lab.start([
      ...['vm', 'list', '--watch', '--sort', '-memory', '--filter', 'phase!=stopped'],
      ...['--columns', 'name,phase', '--no-headers'],
    ]);
    await command.stdout.match(/web/);
    expect(command.stdout.text).toBe('db10  running\nweb   running\n');
    while (changes.listenerCount('change') === 0) await new Promise((done) => setTimeout(done, 10));
    for (const [name, phase] of [
      ['db2', VmPhase.STOPPED],
      ['web', VmPhase.STOPPED],
      ['web', VmPhase.STOPPED],
      ['db2', VmPhase.RUNNING],
    ] as const) {
      const vm = lab.cluster.vms.get(name);
      if (vm?.status !== undefined) vm.status.phase = phase;
      if (vm !== undefined) put(lab.cluster, structuredClone(vm));
    }
    await command.stdout.match(/db2/);
    for (const name of ['web', 'db10'])
      changes.emit('change', lab.cluster, {
        change: ChangeKind.DELETE,
        vm: lab.cluster.vms.get(name),
        progress: { revision: 999n },
      });
    await command.stdout.match(/deleted/);
    command.interrupt();
    expect(await command.ended).toMatchObject({
      code: 130,
      stdout: 'db10  running\nweb   running\nweb   stopped\ndb2   running\nvm/db10 deleted\n',
    });
  });
});

describe('every noun', () => {
  const LONG = `a${'b'.repeat(62)}`;

  test.each(Object.keys(KINDS) as KindName[])('%s: columns have names of their own, paths are known', async (kind) => {
    const resource = await kindEntry(kind).load();
    const { columnFor, columnKey, subjectFor } = await import('./subject.ts');
    const keys = resource.columns.map(columnKey);
    expect(new Set(keys).size).toBe(keys.length);
    for (const key of [...keys, ...(kind === 'operation' ? ['target.name'] : ['meta.createTime', 'labels.x'])]) {
      expect(await subjectFor(resource, key)).toBeDefined();
      expect(await columnFor(resource, key)).toBeDefined();
    }
  });

  test('a table fits 100 columns, whatever the names', async () => {
    const meta = lab.cluster.meta('x', LONG);
    lab.cluster.addHost('host1', 3);
    const host = lab.cluster.hosts.get('host1');
    if (host?.status !== undefined) Object.assign(host.status, { message: LONG });
    if (host !== undefined) host.meta = meta;
    const vm = lab.cluster.vms.get('web');
    if (vm?.status !== undefined) Object.assign(vm.status, { host: LONG, message: LONG });
    if (vm !== undefined) vm.meta = meta;
    await lab.cli('network', 'create', LONG, '--bridge', 'a'.repeat(15));
    await lab.cli('volume', 'create', LONG, '--size', '1GiB');
    const volume = lab.cluster.volumes.get(LONG);
    if (volume?.spec !== undefined) volume.spec.image = LONG;
    if (volume?.status !== undefined) volume.status.vm = { kind: 'vm', id: 'x', name: LONG };
    for (const [index, op] of [...lab.cluster.operations.values()].entries()) {
      const state = [OperationState.SUCCEEDED, OperationState.CANCELLED][index % 2] ?? OperationState.FAILED;
      Object.assign(op, { id: '3fa85f64-5717-4562-b3fc-2c963f66afa6', method: 'CreateVolume', message: LONG, state });
      op.target = { kind: 'volume', id: 'x', name: LONG };
    }
    lab.file('x.img', Buffer.alloc(512, 'x'));
    await lab.cli('image', 'import', LONG, 'x.img');
    for (const kind of Object.keys(KINDS)) {
      const text = await stdout(kind, 'list');
      expect(text.split('\n').length, kind).toBeGreaterThan(2);
      for (const line of text.split('\n')) expect([...line].length, `${kind}: ${line}`).toBeLessThanOrEqual(100);
    }
  });
});
