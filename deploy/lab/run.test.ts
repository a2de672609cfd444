// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { LockedError, withLock } from './lock.ts';
import { CommandError, DeadlineError, run, until } from './run.ts';

describe('running a program', () => {
  it('passes input and arguments on untouched', async () => {
    expect(await run(['cat', '-'], { input: 'a $HOME `b`' })).toEqual({ code: 0, stdout: 'a $HOME `b`', stderr: '' });
  });

  it('throws with what the program said, or returns its code when asked to', async () => {
    await expect(run(['sh', '-c', 'echo why >&2; exit 3'])).rejects.toThrow(/exit 3\nwhy/);
    expect((await run(['sh', '-c', 'exit 3'], { mayFail: true })).code).toBe(3);
    expect((await run(['sh', '-c', 'kill -9 $$'], { mayFail: true })).code).toBe(137);
    await expect(run(['no-such-program-here'])).rejects.toThrow(/not installed/);
  });

  it('ends a program at its deadline', async () => {
    await expect(run(['sleep', '60'], { timeoutMs: 50 })).rejects.toThrow(CommandError);
  });
});

describe('waiting', () => {
  it('ends with the value, or with the reason that there is none', async () => {
    let asked = 0;
    const third = (): { value: string } | { waiting: string } => {
      asked += 1;
      return asked === 3 ? { value: 'x' } : { waiting: 'not yet' };
    };
    expect(await until('x', third, { timeoutMs: 5000, everyMs: 1 })).toBe('x');
    const never = until('the moon', () => ({ waiting: 'it is cloudy' }), { timeoutMs: 5, everyMs: 1 });
    await expect(never).rejects.toThrow(DeadlineError);
    await expect(never).rejects.toThrow(/the moon.*it is cloudy/);
  });
});

describe('lock', () => {
  it('admits one at a time and is free again after a failure', async () => {
    const name = 'test/one';
    const directory = mkdtempSync(join(tmpdir(), 'busbar-lab-lock-'));
    await withLock(
      name,
      async () => {
        await expect(withLock(name, async () => {}, { waitMs: 0, directory })).rejects.toThrow(LockedError);
      },
      { directory },
    );
    await expect(withLock(name, async () => await Promise.reject(new Error('inside')), { directory })).rejects.toThrow(
      'inside',
    );
    expect(await withLock(name, async () => 1, { waitMs: 0, directory })).toBe(1);
    rmSync(directory, { recursive: true });
  });
});
