// SPDX-License-Identifier: Apache-2.0
import { systemClock } from '@busbar/core/clock/clock';
import { expect, test } from 'vitest';
import { InputProgram } from './program.ts';

test('takes many writes one after the other', async () => {
  const program = new InputProgram('wc', ['-c'], systemClock);
  for (let n = 0; n < 1000; n++) await program.write(Buffer.alloc(100), 10_000);
  await program.finish(10_000);
});

test('its end fails the write that waits, and those after it, with what it said', async () => {
  const program = new InputProgram('sh', ['-c', 'echo no room >&2; exit 3'], systemClock);
  const flood = async () => {
    for (;;) await program.write(Buffer.alloc(1 << 20), 10_000);
  };
  await expect(flood()).rejects.toMatchObject({ message: expect.stringContaining('(3): no room') });
  await expect(program.write(Buffer.alloc(1), 10_000)).rejects.toMatchObject({ reason: 'STORAGE_FAILED' });
});

test('one that takes nothing is told at the deadline', async () => {
  const program = new InputProgram('sleep', ['60'], systemClock);
  const flood = async () => {
    for (;;) await program.write(Buffer.alloc(1 << 20), 100);
  };
  await expect(flood()).rejects.toMatchObject({ reason: 'STORAGE_TIMEOUT' });
  await program.abort(100);
});
