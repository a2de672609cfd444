// SPDX-License-Identifier: Apache-2.0
import type { OpenConsoleRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { expect, it } from 'vitest';
import { FIRST_MESSAGE_DEADLINE_MS } from '../session/first-message.ts';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import { openConsole } from './console.ts';

it('a console that nobody names a VM for is given up', async () => {
  const rig = new Rig();
  await rig.start();
  let released = false;
  const silent: AsyncIterable<OpenConsoleRequest> = {
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise<never>(() => {}),
      return: async () => {
        released = true;
        return { value: undefined, done: true };
      },
    }),
  };
  const call = {
    caller: testCaller(),
    audit: { method: 'busbar.v1.VmService/OpenConsole', id: null, settled: false, accepted() {} },
    signal: new AbortController().signal,
  };
  const first = openConsole(rig.api, silent, call)[Symbol.asyncIterator]().next();
  first.catch(() => {});
  await rig.clock.advance(FIRST_MESSAGE_DEADLINE_MS);
  await expect(first).rejects.toMatchObject({ kind: 'timeout', reason: 'DEADLINE_EXCEEDED' });
  expect(released).toBe(true);
  rig.stop();
});
