// SPDX-License-Identifier: Apache-2.0
import { EventEmitter } from 'node:events';
import { settle, VirtualClock } from '@busbar/core/clock/virtual';
import type { Revision } from '@busbar/core/ids';
import { silentLogger } from '@busbar/core/log';
import { expect, it } from 'vitest';
import { BatchQueue } from '../batch-queue.ts';
import { EventType } from './messages.ts';
import { WatchSession } from './watch.ts';

/** A member whose watch streams answer every heartbeat. */
class FakeMember {
  readonly address: string;
  isSlow = false;
  suspected = false;
  readonly streams: FakeStream[] = [];

  constructor(address: string) {
    this.address = address;
  }

  stream(): FakeStream {
    const stream = new FakeStream();
    this.streams.push(stream);
    return stream;
  }

  suspect(): void {
    this.suspected = true;
  }

  served(): void {}
}

class FakeStream extends EventEmitter {
  from: bigint | null = null;
  cancelled = false;

  write(request: { create?: { startRevision: bigint }; progress?: object }): void {
    if (request.create !== undefined) this.from = request.create.startRevision;
    else this.emit('data', { watchId: -1n, events: [] });
  }

  cancel(): void {
    this.cancelled = true;
  }

  tell(modRevision: bigint): void {
    const kv = { key: 'k', value: String(modRevision), createRevision: modRevision, modRevision };
    this.emit('data', { watchId: 0n, events: [{ type: EventType.put, kv }] });
  }
}

function watching(...members: readonly FakeMember[]) {
  const clock = new VirtualClock();
  const queue = new BatchQueue(100);
  const over = new AbortController();
  const pool = {
    pick: async () => members.find(({ isSlow }) => !isSlow) ?? members[0],
    hasQuicker: (member: FakeMember) => members.some((other) => other !== member && !other.isSlow),
  };
  const session = new WatchSession({
    pool: pool as never,
    clock,
    log: silentLogger,
    prefix: 'k',
    after: 5n as Revision,
    queue,
    signal: over.signal,
  });
  const ended = session.run();
  return {
    clock,
    end: async () => {
      over.abort();
      queue.abort();
      await clock.advance(1_000);
      await ended;
    },
  };
}

it('leaves a member that keeps calls waiting for a quicker one, which goes on where it stood', async () => {
  const [slow, quick] = [new FakeMember('slow'), new FakeMember('quick')];
  const { clock, end } = watching(slow, quick);
  await settle();
  slow.streams[0]?.tell(7n);
  await clock.advance(2_000);
  expect(slow.streams[0]?.cancelled).toBe(false);

  slow.isSlow = true; // somebody's read was kept waiting
  await clock.advance(2_000);
  expect(slow.streams.map(({ cancelled }) => cancelled)).toEqual([true]);
  expect(slow.suspected).toBe(false);
  expect(quick.streams.map(({ from, cancelled }) => ({ from, cancelled }))).toEqual([{ from: 7n, cancelled: false }]);
  await end();
});

it('stays with a slow member while no other is quicker', async () => {
  const [first, second] = [new FakeMember('first'), new FakeMember('second')];
  const { clock, end } = watching(first, second);
  await settle();
  first.isSlow = true;
  second.isSlow = true;
  await clock.advance(10_000);
  expect(first.streams.map(({ cancelled }) => cancelled)).toEqual([false]);
  expect(second.streams).toEqual([]);
  await end();
});
