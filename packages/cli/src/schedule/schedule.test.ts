// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { CliError } from '../cli/exit.ts';
import { startLab, type TestLab } from '../testing/cli.ts';
import { strictCpuList } from './fields.ts';
import { readHosts, readPolicy, readRequests } from './read.ts';

vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
let folder: string;
beforeEach(async () => {
  lab = await startLab(0);
  folder = mkdtempSync(join(tmpdir(), 'busbar-schedule-'));
  return () => {
    rmSync(folder, { recursive: true });
    lab.end();
  };
});

function file(name: string, content: unknown): string {
  const path = join(folder, name);
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

const HOSTS = [
  { name: 'h', count: 2, cpus: 16, threadsPerCore: 2, numaNodes: 2, memory: '64GiB', isolatedCpus: '2-3,6-7' },
];

describe('busbar schedule', () => {
  test('says of each VM host, NUMA nodes and CPUs, or the refusal; exit code 1 when there is one', async () => {
    const hosts = file('hosts.json', HOSTS);
    const vms = file('vms.json', {
      vms: [
        { name: 'rt', vcpus: 2, memory: '2GiB', cpuPolicy: 'realtime' },
        { name: 'own', vcpus: 4, memoryMib: 4096, cpuPolicy: 'dedicated' },
        { name: 'big', vcpus: 4, memoryBytes: String(100 * 1024 ** 3) },
      ],
    });
    const { code, stdout, stderr } = await lab.cli('schedule', '--hosts', hosts, '--vms', vms, '-o', 'json');
    expect(stderr).toBe('');
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      summary: { vms: 3, placed: 2, refused: 1, placedBeforeFirstRefusal: 2, hosts: 2, hostsUsed: 1 },
      vms: [
        { name: 'rt', host: 'h-1', numaNodes: [0], cpus: [2, 3], emulatorCpus: [0] },
        { name: 'own', host: 'h-1', numaNodes: [0], cpus: expect.any(Array) },
        { name: 'big', refused: expect.stringContaining('memory: ') },
      ],
    });
  });

  test('a table for people', async () => {
    const hosts = file('hosts.json', HOSTS);
    const vms = file('vms.json', [{ name: 'web', count: 3, vcpus: 2, memory: '8GiB' }]);
    expect((await lab.cli('schedule', '--hosts', hosts, '--vms', vms)).stdout).toMatchInlineSnapshot(`
      "HOST  VMS  VCPUS       MEMORY
      h-1     3   6/16  24GiB/64GiB
      h-2     0   0/16     0B/64GiB

      3 of 3 VMs placed on 1 of 2 hosts
      "
    `);
  });

  test('a stream of lines, with releases, gives a line each', async () => {
    const hosts = file('hosts.json', [{ name: 'only', cpus: 4, memory: '8GiB' }]);
    const vms = file(
      'vms.jsonl',
      ['a', 'b', 'c']
        .map((name) => JSON.stringify({ name, vcpus: 4, memory: '1GiB' }))
        .join(`\n{"release": "a"}\n`)
        .replace('{"release": "a"}\n{"name":"c"', '{"name":"c"'),
    );
    const { stdout } = await lab.cli('schedule', '--hosts', hosts, '--vms', vms, '-o', 'jsonl');
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { name: string; host?: string });
    expect(lines.map(({ name, host }) => [name, host])).toEqual([
      ['a', 'only'],
      ['b', 'only'],
      ['c', undefined],
    ]);
  });

  test('a batch is all or nothing, or as many as possible', async () => {
    const hosts = file('hosts.json', [{ name: 'only', cpus: 4, memory: '8GiB' }]);
    const vms = file('vms.json', [
      { name: 'small', vcpus: 1, memory: '1GiB' },
      { name: 'large', vcpus: 4, memory: '1GiB', priority: 1 },
    ]);
    const run = async (mode: string) => {
      const { stdout } = await lab.cli('schedule', '--hosts', hosts, '--vms', vms, '--batch', mode, '-o', 'name');
      return stdout;
    };
    expect(await run('all')).toBe('');
    expect(await run('best-effort')).toBe('vm/large\n');
    expect((await lab.cli('schedule', '--hosts', hosts, '--vms', vms, '--batch', 'some')).code).toBe(2);
  });

  test('--moves makes room by one move', async () => {
    const hosts = file('hosts.json', [{ name: 'h', count: 2, cpus: 4, memory: '8GiB' }]);
    // Small ones on both hosts: the large one needs a whole host.
    const vms = file('vms.json', [
      { name: 'a', vcpus: 1, memory: '1GiB', pinnedHost: 'h-1' },
      { name: 'b', vcpus: 1, memory: '1GiB', preferredHosts: ['h-2'] },
      { name: 'large', vcpus: 4, memory: '1GiB' },
    ]);
    const { stdout, code } = await lab.cli('schedule', '--hosts', hosts, '--vms', vms, '--moves', '-o', 'json');
    expect(code).toBe(0);
    expect((JSON.parse(stdout) as { vms: unknown[] }).vms[2]).toMatchObject({
      name: 'large',
      host: 'h-2',
      moved: { name: 'b', from: 'h-2', host: 'h-1' },
    });
  });

  test('what is wrong in a file is told with its field, its value and what would be right', async () => {
    const hosts = file('hosts.json', HOSTS);
    const vms = file('vms.json', [{ name: 'a', vcpus: 0, memory: '8Gb', foo: 1 }]);
    expect(await lab.cli('schedule', '--hosts', hosts, '--vms', vms)).toEqual({
      code: 2,
      stdout: '',
      stderr: `error: ${vms} cannot be used
why: vms[0].vcpus is 0, expected a whole number from 1 to 4096
     vms[0].memory is "8Gb", expected memory such as 4GiB, or a number of MiB, from 1 MiB to 64 TiB
     vms[0].foo is unknown, expected no such field
do: correct the file; \`busbar schedule --help\` shows what may be in it
`,
    });
  });
});

const wrong = (read: () => unknown): string => {
  try {
    read();
  } catch (error) {
    expect(error).toBeInstanceOf(CliError);
    return (error as CliError).why.join('\n');
  }
  return 'nothing wrong';
};

describe('reading', () => {
  test.each([
    ['[{"name":"a"}]', 'hosts[0].cpus is missing, expected a number of CPUs, or a list of numaNodes'],
    [
      '[{"name":"a","cpus":5,"numaNodes":2,"memory":1}]',
      'hosts[0].cpus is 5, expected a multiple of 2 (threads × NUMA nodes)',
    ],
    [
      '[{"name":"a","cpus":4,"memory":1,"isolatedCpus":"3-9"}]',
      'hosts[0].isolatedCpus names CPU 4, 5, 6, 7, 8, 9, expected CPUs that the host has',
    ],
    [
      '[{"name":"a","cpus":1,"memory":1},{"name":"a","cpus":1,"memory":1}]',
      'hosts names "a" twice, expected a name of its own for each',
    ],
    ['{"x":1}', 'the file holds no list of hosts, expected […] or {"hosts": […]}'],
    ['[', 'the file is no JSON'],
  ])('hosts %s', (text, why) => {
    expect(wrong(() => readHosts(text, 'f'))).toContain(why);
  });

  test.each([
    [
      '[{"name":"a","vcpus":4,"memory":"5GiB","hugepages":"1G","cells":[{"vcpus":2,"memory":1}]}]',
      'vms[0].cells have vcpus 2 in all, expected 4, as the VM',
    ],
    [
      '[{"name":"a","vcpus":1,"memory":1500,"hugepages":"1G"}]',
      'vms[0].memory is 1500 MiB, expected a multiple of the page size, 1024 MiB',
    ],
    ['[{"name":"a","vcpus":1,"memory":1,"numa":"explicit"}]', 'vms[0].cells are missing'],
    ['[{"release":"b"}]', 'vms releases "b", which is not there then, expected the name of a VM that comes before'],
    ['[{"name":"a","vcpus":1,"memory":1},{"name":"a","vcpus":1,"memory":1}]', 'vms names "a" twice'],
  ])('VMs %s', (text, why) => {
    expect(wrong(() => readRequests(text, 'f'))).toContain(why);
  });

  test('CPU lists', () => {
    expect(strictCpuList('0-3,8')).toEqual([0, 1, 2, 3, 8]);
    expect(strictCpuList('')).toEqual([]);
    for (const text of ['3-1', 'a', '1-', '-1', '1,,2', '99999']) expect(strictCpuList(text), text).toBeNull();
  });

  test('any JSON at all is read or refused, never worse', () => {
    const texts = fc.oneof(
      fc.json(),
      fc.string(),
      fc
        .array(
          fc.record(
            {
              name: fc.string(),
              vcpus: fc.anything(),
              memory: fc.anything(),
              cpus: fc.anything(),
              numaNodes: fc.anything(),
              cells: fc.anything(),
            },
            { requiredKeys: [] },
          ),
        )
        .map(
          (value) =>
            JSON.stringify(value, (_, each: unknown) => (typeof each === 'bigint' ? String(each) : each)) ?? '',
        ),
    );
    fc.assert(
      fc.property(texts, (text) => {
        for (const read of [readHosts, readRequests, readPolicy]) {
          try {
            read(text, 'f');
          } catch (error) {
            expect(error).toBeInstanceOf(CliError);
          }
        }
      }),
    );
  });
});
