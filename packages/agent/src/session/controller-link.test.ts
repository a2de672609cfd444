// SPDX-License-Identifier: Apache-2.0
import { getEventListeners } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { VirtualClock } from '@busbar/core/clock/virtual';
import { Pulse } from '@busbar/core/pulse';
import { SessionResponse } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { HostRole } from '@busbar/proto/gen/busbar/v1/host';
import { expect, it } from 'vitest';
import { Lease } from '../lease/lease.ts';
import { ControllerLink } from './controller-link.ts';
import { Pipe } from './scripted-cluster.fixture.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** A link whose controller says what the test pushes; `desired` counts what arrived. */
function open(pipe: AsyncIterable<SessionResponse>) {
  const seen = { desired: 0, ended: [] as string[], signal: undefined as AbortSignal | undefined };
  const controllers = ['h1'];
  const clock = new VirtualClock();
  const link = new ControllerLink({
    clock,
    pulse: new Pulse(clock),
    dialer: {
      session: (_address, _outgoing, signal) => {
        seen.signal = signal;
        return pipe;
      },
    },
    controller: { host: 'h1', address: 'h1' },
    controllers,
    sources: {
      hello: { host: 'h9', bootId: 'b', role: HostRole.HYPERVISOR, agentVersion: '0', agentInstanceId: 'i' },
      inventory: () => undefined,
      report: () => undefined,
    },
    lease: new Lease(controllers).openSession('h1'),
    events: {
      welcomed: () => {},
      acknowledged: () => {},
      suspect: () => {},
      marked: () => {},
      desired: () => seen.desired++,
      attach: () => {},
      ended: (_link, why) => seen.ended.push(why),
    },
  });
  return { link, seen };
}

it('keeps nothing of the messages it has read, however long the session lasts', async () => {
  const messages = 100_000;
  const value = { controller: 'h1', controllers: ['h1'], heartbeatIntervalMs: 250, leaseTtlMs: 2500 };
  let heapBefore = 0;
  let heapAfter = 0;
  let done = () => {};
  const finished = new Promise<void>((resolve) => {
    done = resolve;
  });
  async function* talk(): AsyncGenerator<SessionResponse, void> {
    yield SessionResponse.fromPartial({ message: { $case: 'welcome', value } });
    for (let n = 0; n < messages; n++) {
      if (n === 1000) {
        collectGarbage();
        heapBefore = process.memoryUsage().heapUsed;
      }
      // 200 bytes and more each: 20 MB if they stayed.
      const position = { term: BigInt(n), generation: BigInt(n) };
      yield { message: { $case: 'desired', value: { position, vms: [], destroy: [], bootId: '', noStart: '' } } };
    }
    collectGarbage();
    heapAfter = process.memoryUsage().heapUsed;
    done();
    await new Promise(() => {});
  }
  const { link, seen } = open(talk());
  link.start();
  await finished;
  expect(seen.desired).toBe(messages);
  expect(getEventListeners(seen.signal as AbortSignal, 'abort').length).toBeLessThanOrEqual(1);
  expect(heapAfter - heapBefore).toBeLessThan(5_000_000);
  link.close('the test ends');
  expect(getEventListeners(seen.signal as AbortSignal, 'abort')).toHaveLength(0);
});

it('reads no more once it is closed, also when the stream does not end', async () => {
  const pipe = new Pipe<SessionResponse>();
  const { link, seen } = open(pipe);
  link.start();
  link.close('enough');
  pipe.end(new Error('told too late'));
  await new Promise((resolve) => setImmediate(resolve));
  expect(seen.ended).toEqual(['enough']);
});
