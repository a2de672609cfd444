// SPDX-License-Identifier: Apache-2.0
import { busbarOk } from '@busbar/deploy/demo/busbar';
import { GetVmLogRequest, OpenConsoleRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addressOf, busbar, clientOf, eventually, LAB, VOTERS } from './lab.ts';
import { call, framed, type RawStream, session } from './streams.ts';

/** Goal: whoever may only look keeps nobody from working. */
const VM = 'victim';
const LOGS = 40;

beforeAll(async () => {
  await busbarOk(LAB, [
    'vm',
    'create',
    VM,
    '--image',
    'busbar-guest',
    '--memory',
    '256MiB',
    '--vcpus',
    '1',
    '--network',
    'plant',
  ]);
});
afterAll(() => busbar(['vm', 'delete', VM, '--force']));

describe("a viewer who follows a VM's log forty times, through every controller", () => {
  it('is given his share and told so, and an operator opens a console and a log', async () => {
    const viewer = clientOf('viewer');
    const opened: RawStream[] = [];
    const sessions = await Promise.all(VOTERS.map(async (host) => session(await addressOf(host), viewer)));
    try {
      for (let n = 0; n < LOGS; n++) {
        const over = sessions[n % sessions.length];
        if (over === undefined) throw new Error('no session');
        const log = call(over, '/busbar.v1.VmService/GetVmLog');
        log.stream.end(framed(GetVmLogRequest.encode(GetVmLogRequest.fromPartial({ vm: VM, follow: true })).finish()));
        opened.push(log);
      }
      const refused = () => opened.filter((log) => log.ended() !== null);
      await eventually('all but eight are refused', 20_000, async () => (refused().length >= LOGS - 8 ? true : null));
      expect(refused()).toHaveLength(LOGS - 8);
      const told = refused().map((log) => log.ended());
      expect(told.filter((end) => end?.code === 8).length).toBeGreaterThan(0);
      expect(told.some((end) => end?.message.includes('8 logs at this host, the most that one caller may have'))).toBe(
        true,
      );

      const operator = await session(await addressOf(VOTERS[0]), clientOf('operator'));
      sessions.push(operator);
      const console = call(operator, '/busbar.v1.VmService/OpenConsole');
      console.stream.write(framed(OpenConsoleRequest.encode(OpenConsoleRequest.fromPartial({ vm: VM })).finish()));
      await eventually('the console is open', 15_000, async () => (console.received() > 0 ? true : null));
      expect(console.ended()).toBeNull();
      const log = call(operator, '/busbar.v1.VmService/GetVmLog');
      log.stream.end(framed(GetVmLogRequest.encode(GetVmLogRequest.fromPartial({ vm: VM, follow: true })).finish()));
      await eventually('the log is open', 15_000, async () => (log.received() > 0 ? true : null));
      expect(log.ended()).toBeNull();
    } finally {
      for (const each of sessions) each.destroy();
    }
  });
});
