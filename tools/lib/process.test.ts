// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { runProgram } from './process.ts';

describe('runProgram', { timeout: 20_000 }, () => {
  it('tells how a program ended and what it said', async () => {
    const result = await runProgram('sh', ['-c', 'echo out; echo err >&2; exit 3'], { timeoutMs: 5000 });
    expect(result).toMatchObject({ ok: false, how: 'exit code 3', timedOut: false });
    expect(result.output.split('\n').sort()).toEqual(['', 'err', 'out']);
  });

  it('tells of a program that does not exist', async () => {
    const result = await runProgram('no-such-program-here', [], { timeoutMs: 5000 });
    expect(result.ok).toBe(false);
    expect(result.how).toMatch(/could not be run.*ENOENT/);
  });

  it('passes on what comes on file descriptor 3', async () => {
    const lines: string[] = [];
    await runProgram('sh', ['-c', 'echo one >&3; printf two\\\\nthree\\\\n >&3'], {
      timeoutMs: 5000,
      onMessage: (line) => lines.push(line),
    });
    expect(lines).toEqual(['one', 'two', 'three']);
  });

  it('kills a hanging program with all that it started', async () => {
    const result = await runProgram('sh', ['-c', 'sleep 300 & echo $!; wait'], { timeoutMs: 2000 });
    expect(result).toMatchObject({ ok: false, how: 'killed after 2 s', timedOut: true });
    const grandchild = Number(result.output);
    await expect.poll(() => isRunning(grandchild), { timeout: 5000 }).toBe(false);
  });

  it('kills what a program leaves behind', async () => {
    const result = await runProgram('sh', ['-c', 'sleep 300 >/dev/null 2>&1 & echo $!'], { timeoutMs: 5000 });
    expect(result.ok).toBe(true);
    await expect.poll(() => isRunning(Number(result.output)), { timeout: 5000 }).toBe(false);
  });
});

/** Process 1 of a container may leave the dead as zombies. */
async function isRunning(pid: number): Promise<boolean> {
  const { output, ok } = await runProgram('ps', ['-o', 'stat=', '-p', String(pid)], { timeoutMs: 5000 });
  return ok && !output.trim().startsWith('Z');
}
