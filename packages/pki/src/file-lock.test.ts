// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lockFile } from './file-lock.ts';

let top: string;
let path: string;
const children: ChildProcess[] = [];
beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), 'busbar-lock-'));
  path = join(top, 'lock');
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  rmSync(top, { recursive: true, force: true });
});

/** Another process that holds the lock, until it is killed. */
async function holder(): Promise<ChildProcess> {
  const code = `const { lockFile } = await import(${JSON.stringify(new URL('./file-lock.ts', import.meta.url).href)});
    const lock = await lockFile(process.argv[1]);
    process.stdout.write(lock === undefined ? 'busy' : 'held');
    setInterval(() => globalThis.gc?.(), 10);`;
  const child = spawn(process.execPath, ['--expose-gc', '--input-type=module', '-e', code, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [said] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  expect(said.toString()).toBe('held');
  return child;
}

describe('the lock of a file', () => {
  it('is held by one, also of the same process, and given back', async () => {
    const first = await lockFile(path);
    expect(first).toBeDefined();
    expect(await lockFile(path)).toBeUndefined();
    first?.[Symbol.dispose]();
    first?.[Symbol.dispose]();
    const second = await lockFile(path);
    expect(second).toBeDefined();
    second?.[Symbol.dispose]();
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('is dropped by the kernel when its holder is killed, and not before', async () => {
    const child = await holder();
    expect(await lockFile(path)).toBeUndefined();
    const waiting = lockFile(path, { waitMs: 20_000 });
    child.kill('SIGKILL');
    const lock = await waiting;
    expect(lock).toBeDefined();
    lock?.[Symbol.dispose]();
  });

  it('is not inherited by programs that the holder starts', async () => {
    const lock = await lockFile(path);
    children.push(spawn('sleep', ['60'], { stdio: 'ignore' }));
    lock?.[Symbol.dispose]();
    const again = await lockFile(path);
    expect(again).toBeDefined();
    again?.[Symbol.dispose]();
  });

  it('is held by one of many that want it at once', async () => {
    const locks = await Promise.all(Array.from({ length: 8 }, () => lockFile(path)));
    expect(locks.filter((lock) => lock !== undefined)).toHaveLength(1);
  });

  it('is not taken where others could exchange the file, nor through a link', async () => {
    const open = join(top, 'open');
    mkdirSync(open);
    chmodSync(open, 0o777);
    await expect(lockFile(join(open, 'lock'))).rejects.toMatchObject({
      reason: 'LOCK_UNSAFE',
      message: `${open} has mode 777: others may write in it, so nothing can be locked there`,
    });
    writeFileSync(join(top, 'elsewhere'), '');
    symlinkSync(join(top, 'elsewhere'), path);
    await expect(lockFile(path)).rejects.toMatchObject({ code: 'ELOOP' });
    mkdirSync(join(top, 'directory'));
    await expect(lockFile(join(top, 'directory'))).rejects.toThrow(/EISDIR/);
    await expect(lockFile(join(top, 'missing', 'lock'))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
