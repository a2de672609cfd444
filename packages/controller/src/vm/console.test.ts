// SPDX-License-Identifier: Apache-2.0
import { CreateVmRequest, type OpenConsoleRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { expect, it } from 'vitest';
import { INSIDE } from '../api/arrival.ts';
import { FIRST_MESSAGE_DEADLINE_MS } from '../session/first-message.ts';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import { openConsole, readLog } from './console.ts';

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
    audit: { method: 'busbar.v1.VmService/OpenConsole', id: null, settled: false, accepted() {}, beganTime: null },
    arrival: INSIDE,
    signal: new AbortController().signal,
  };
  const first = openConsole(rig.api, silent, call)[Symbol.asyncIterator]().next();
  first.catch(() => {});
  await rig.clock.advance(FIRST_MESSAGE_DEADLINE_MS);
  await expect(first).rejects.toMatchObject({ kind: 'timeout', reason: 'DEADLINE_EXCEEDED' });
  expect(released).toBe(true);
  rig.stop();
});

it('the log of a VM that did not start is refused with what QEMU said', async () => {
  const rig = new Rig();
  await rig.start();
  rig.startFailure = 'qemu-system-x86_64: -drive: no such image';
  const spec = { cpu: { vcpus: 1 }, memoryBytes: 1024n ** 3n };
  await rig.call('VmService', 'createVm', CreateVmRequest.fromPartial({ name: 'relay', spec }));
  await rig.finish();
  const call = {
    caller: testCaller(),
    audit: { method: 'busbar.v1.VmService/GetVmLog', id: null, settled: false, accepted() {}, beganTime: null },
    arrival: INSIDE,
    signal: new AbortController().signal,
  };
  const first = readLog(rig.api, { vm: 'relay', tailBytes: 0n, follow: false }, call)[Symbol.asyncIterator]().next();
  await expect(rig.run(first)).rejects.toMatchObject({
    reason: 'VM_NOT_RUNNING',
    message: expect.stringMatching(
      /^VM "relay" is \w+ \(.*-drive: no such image.*\): it has no console and no log now$/,
    ),
  });
  rig.stop();
});
