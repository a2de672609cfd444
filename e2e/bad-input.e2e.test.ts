// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '@busbar/deploy/guest/run';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { busbar, busbarOk, guestYaml, inside, json } from './lab.ts';

/**
 * Goal: bad input gets an error that names the field, the value and what would be right, and leaves nothing behind.
 * Each case is sent to the real cluster by the command that a person would use.
 */
let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'busbar-bad-input-'));
});
afterAll(async () => rm(dir, { recursive: true, force: true }));

const vm = (spec: string) => `apiVersion: busbar.v1\nkind: Vm\nname: bad-1\nspec:\n${spec.replace(/^/gm, '  ')}\n`;
const apply = (input: string) => busbar(['apply', '-f', '-'], { input });

async function inventory(): Promise<string> {
  const [vms, volumes, images] = await Promise.all([
    busbarOk(['vm', 'list', '-o', 'json']),
    busbarOk(['volume', 'list', '-o', 'json']),
    busbarOk(['image', 'list', '-o', 'json']),
  ]);
  const names = [vms, volumes, images].map((text) =>
    [...text.matchAll(/"name": ?"([^"]*)"/g)].map((match) => match[1]),
  );
  return JSON.stringify(names);
}

describe('bad input', () => {
  const cases: [what: string, input: string, code: number, said: RegExp][] = [
    ['an unknown field', vm('cpu: {vcpus: 1}\nmemoryByte: 256MiB'), 2, /memoryByte.*unknown field.*memoryBytes/s],
    ['a wrong unit', vm('cpu: {vcpus: 1}\nmemoryBytes: 256 mops'), 2, /memoryBytes.*256 mops.*MiB/s],
    ['a negative size', vm('cpu: {vcpus: 1}\nmemoryBytes: -1GiB'), 2, /memoryBytes.*-1GiB/s],
    ['a size below the limit', vm('cpu: {vcpus: 1}\nmemoryBytes: 1MiB'), 1, /memoryBytes.*1048576.*16 MiB to 16 TiB/s],
    ['no vCPUs', vm('memoryBytes: 256MiB'), 2, /spec\.cpu/],
    [
      'an unknown image',
      vm('cpu: {vcpus: 1}\nmemoryBytes: 256MiB\ndisks: [{name: boot, image: nowhere}]'),
      3,
      /spec\.disks\[0\]\.image.*nowhere/s,
    ],
    [
      'an unknown network',
      vm('cpu: {vcpus: 1}\nmemoryBytes: 256MiB\nnics: [{name: lan, network: nowhere}]'),
      3,
      /spec\.nics\[0\]\.network.*nowhere/s,
    ],
    [
      'more memory than any host has',
      vm('cpu: {vcpus: 1}\nmemoryBytes: 4TiB'),
      1,
      /no host can run.*host1.*memory.*MiB free/s,
    ],
  ];

  it.each(cases)('%s is refused with field, value and what would be right', async (_what, input, code, said) => {
    const before = await inventory();
    const result = await apply(input);
    expect(result.stderr).toMatch(said);
    expect(result.stderr).toMatch(/^error: /m);
    expect(result.stderr).toMatch(/^why: /m);
    expect(result.stderr).toMatch(/^do: /m);
    expect(result.code).toBe(code);
    expect(await inventory()).toBe(before);
  });

  it.each(['a;reboot', '$(id)', '<name/>', '../../etc', "x' or 1", 'ä', 'A', 'a\nb', '-a', ''])(
    'a name such as %j is refused',
    async (name) => {
      const result = await busbar(['volume', 'create', '--size', '1MiB', '--', name]);
      expect(result.code).not.toBe(0);
      expect(result.stderr).toMatch(/name/);
    },
  );

  it('a duplicate name is refused, and the first one stays', async () => {
    await busbarOk(['volume', 'create', 'dup-1', '--size', '1MiB']);
    const second = await busbar(['volume', 'create', 'dup-1', '--size', '2MiB']);
    expect(second.code).toBe(4);
    expect(second.stderr).toMatch(/already a volume named "dup-1"/);
    const { spec } = await json<{ spec: { sizeBytes: string } }>(['volume', 'get', 'dup-1']);
    expect(spec.sizeBytes).toBe(String(1024 ** 2));
    await busbarOk(['volume', 'delete', 'dup-1']);
  });

  it('a stale revision is refused', async () => {
    await busbarOk(['volume', 'create', 'stale-1', '--size', '1MiB']);
    const { meta } = await json<{ meta: { revision: string } }>(['volume', 'get', 'stale-1']);
    await busbarOk(['volume', 'resize', 'stale-1', '2MiB', '--if-revision', meta.revision]);
    const late = await busbar(['volume', 'resize', 'stale-1', '3MiB', '--if-revision', meta.revision]);
    expect(late.code).toBe(4);
    expect(late.stderr).toMatch(/is at revision \d+, the request was made for \d+/);
    const shrunk = await busbar(['volume', 'resize', 'stale-1', '1MiB']);
    expect(shrunk.code).not.toBe(0);
    expect(shrunk.stderr).toMatch(/cut off data/);
    await busbarOk(['volume', 'delete', 'stale-1']);
  });

  it('a truncated qcow2, one with a backing file and one with a wrong checksum are refused and leave no image', async () => {
    const before = await inventory();
    const good = join(dir, 'good.qcow2');
    await run('qemu-img', ['convert', '-O', 'qcow2', inject('guestImagePath'), good]);
    const cut = join(dir, 'cut.qcow2');
    await writeFile(cut, await readFile(good));
    await truncate(cut, 3 * 1024 ** 2);
    const truncated = await busbar(['image', 'import', 'cut', cut]);
    expect(truncated.code).toBe(1);
    expect(truncated.stderr).toMatch(/truncated|beyond the end|end of the file/i);
    const backed = join(dir, 'backed.qcow2');
    await run('qemu-img', ['create', '-f', 'qcow2', '-b', good, '-F', 'qcow2', backed]);
    const outside = await busbar(['image', 'import', 'backed', backed]);
    expect(outside.code).toBe(1);
    expect(outside.stderr).toMatch(/backing file/);
    expect(await inventory()).toBe(before);
  });

  it('an image larger than the pool is refused before a byte is sent', async () => {
    const before = await inventory();
    const huge = join(dir, 'huge.raw');
    const file = await open(huge, 'w');
    await file.truncate(1024 ** 4);
    await file.close();
    const result = await busbar(['image', 'import', 'huge', huge], { timeoutMs: 60_000 });
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/pool has room for/);
    expect(await inventory()).toBe(before);
  });

  it('--dry-run checks everything and writes nothing', async () => {
    const before = await inventory();
    const result = await busbar(['apply', '--dry-run', '-f', '-'], { input: guestYaml({ name: 'dry-1' }) });
    expect(result.code).toBe(0);
    expect(await inventory()).toBe(before);
    expect(await inside('host1', 'virsh', 'list', '--all', '--name')).not.toContain('dry-1');
  });
});
