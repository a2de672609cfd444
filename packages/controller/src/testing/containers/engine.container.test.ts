// SPDX-License-Identifier: Apache-2.0
import { fork } from 'node:child_process';
import { existsSync, globSync, readFileSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { soon } from '../../store/examine.fixture.ts';
import { lacking } from './engine.ts';
import { removeStale } from './remains.ts';

let data = '';
afterEach(() => rmSync(data, { recursive: true, force: true }));

/** Processes in the control group of this name. */
function processesOf(group: string): readonly string[] {
  return globSync('/proc/[0-9]*/cgroup').filter((file) => {
    try {
      return readFileSync(file, 'utf8').includes(`/${group}/`);
    } catch {
      return false; // It ended meanwhile.
    }
  });
}

describe('an engine whose test process was killed', () => {
  test('leaves at most what is frozen, and the next run clears it away', async (context) => {
    const lacks = lacking();
    if (lacks.length > 0) context.skip(`no engine can be started here without ${lacks.join(', ')}`);
    data = await mkdtemp(join(tmpdir(), 'busbar-frozen-'));
    const child = fork(join(import.meta.dirname, 'engine.fixture.ts'), { stdio: 'inherit' });
    const exited = new Promise((resolve) => child.once('exit', resolve));
    const ready = new Promise<string>((resolve) => child.once('message', (address: string) => resolve(address)));
    child.send(data);
    const directory = dirname(new URL(await soon(ready, 40_000)).pathname);
    const group = basename(directory);
    expect(processesOf(group)).not.toEqual([]);
    child.kill('SIGKILL');
    await exited;
    await removeStale();
    expect(processesOf(group)).toEqual([]);
    expect(globSync(`/sys/fs/cgroup/{,*/}${group}`)).toEqual([]);
    expect(existsSync(directory)).toBe(false);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(directory);
  });
});
