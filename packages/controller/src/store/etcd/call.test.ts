// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import { BusbarError } from '@busbar/core/errors';
import { describe, expect, test } from 'vitest';
import { storeClosed, storeUnavailable } from '../errors.ts';
import { Caller, type CallOptions, type Candidate } from './call.ts';
import { CallFailure, type FailureKind } from './failure.ts';

type Behaviour = 'answers' | 'slow' | 'frozen' | 'fading' | 'leaderless' | FailureKind;

class FakeMember implements Candidate {
  readonly address: string;
  readonly behaviour: Behaviour;
  readonly #clock: VirtualClock;
  calls = 0;
  cancelled = 0;
  suspected = false;
  isSlow = false;

  constructor(address: string, behaviour: Behaviour, clock: VirtualClock) {
    this.address = address;
    this.behaviour = behaviour;
    this.#clock = clock;
  }

  suspect(): void {
    this.suspected = true;
  }

  keptWaiting(): void {
    this.isSlow = true;
  }

  probe(): Promise<{ leader: bigint }> {
    const silent = this.behaviour === 'frozen' || (this.behaviour === 'fading' && this.#clock.nowMs() > 3_000);
    if (!silent) return Promise.resolve({ leader: this.behaviour === 'leaderless' ? 0n : 1n });
    return new Promise((_, reject) => {
      this.#clock.timer(1_000, () => reject(new CallFailure('unknown', 'no sign of life')));
    });
  }

  start(): { answer: Promise<string>; cancel: () => void } {
    this.calls++;
    const cancel = () => {
      this.cancelled++;
    };
    switch (this.behaviour) {
      case 'answers':
        return { answer: Promise.resolve(this.address), cancel };
      case 'slow':
        return {
          answer: new Promise((resolve) => {
            this.#clock.timer(2_000, () => resolve(this.address));
          }),
          cancel,
        };
      case 'frozen':
      case 'fading':
      case 'leaderless':
        return { answer: new Promise(() => {}), cancel };
      default:
        return { answer: Promise.reject(new CallFailure(this.behaviour, this.behaviour)), cancel };
    }
  }
}

/** The outcome of one call to members that behave so, chosen in this order, and what it did. */
async function outcome(kind: CallOptions['kind'], ...behaviours: Behaviour[]) {
  const clock = new VirtualClock();
  const members = behaviours.map((behaviour, i) => new FakeMember(`m${i}`, behaviour, clock));
  const closing = new AbortController();
  const chooser = {
    async pick(): Promise<FakeMember> {
      closing.signal.throwIfAborted();
      const present = members.filter(({ suspected }) => !suspected);
      const member = present.find(({ isSlow }) => !isSlow) ?? present[0];
      if (member === undefined) throw storeUnavailable('no member');
      return member;
    },
    hasQuicker: (member: FakeMember) => members.some((other) => other !== member && !other.isSlow && !other.suspected),
  };
  const caller = new Caller(chooser, clock, closing.signal);
  let result: unknown;
  const calling = caller
    .call({ what: 'test', kind, deadlineMs: 3_500 }, (member) => member.start())
    .then(
      ({ value, repeated, sentMs }) => {
        result = { value, repeated, sentMs };
      },
      (error: unknown) => {
        result = error instanceof BusbarError || error instanceof CallFailure ? error.kind : error;
      },
    );
  const close = () => closing.abort(storeClosed());
  return {
    clock,
    members,
    close,
    end: async () => {
      expect(await clock.advanceUntil(() => result !== undefined, 10_000)).toBe(true);
      await calling;
      return { result, tookMs: clock.nowMs(), calls: members.map(({ calls }) => calls) };
    },
  };
}

const run = async (kind: CallOptions['kind'], ...behaviours: Behaviour[]) => (await outcome(kind, ...behaviours)).end();

describe('a call', () => {
  test('leaves a frozen member after the silence and a probe', async () => {
    for (const kind of ['read', 'repeatable write'] as const) {
      expect(await run(kind, 'frozen', 'answers')).toEqual({
        result: { value: 'm1', repeated: true, sentMs: 1_450 },
        tookMs: 1_450,
        calls: [1, 1],
      });
    }
  });

  test('is never sent twice when it is a plain write', async () => {
    expect(await run('write', 'frozen', 'answers')).toEqual({ result: 'timeout', tookMs: 1_400, calls: [1, 0] });
    expect(await run('write', 'unknown', 'answers')).toEqual({ result: 'timeout', tookMs: 0, calls: [1, 0] });
  });

  test('goes on when nothing can have been applied', async () => {
    for (const kind of ['read', 'write', 'repeatable write'] as const) {
      const { result } = await run(kind, 'not-applied', 'not-applied', 'answers');
      expect(result).toEqual({ value: 'm2', repeated: false, sentMs: 100 });
    }
  });

  test('waits for a member that is slow but alive', async () => {
    const { result, calls } = await run('write', 'slow', 'answers');
    expect([result, calls]).toEqual([{ value: 'm0', repeated: false, sentMs: 0 }, [1, 0]]);
  });

  test('leaves a slow one if it only reads and there is a quicker one, which others then know', async () => {
    for (const kind of ['read', 'write', 'repeatable write'] as const) {
      const { end, members } = await outcome(kind, 'slow', 'answers');
      const { result, calls } = await end();
      if (kind === 'read') expect([result, calls]).toEqual([{ value: 'm1', repeated: false, sentMs: 450 }, [1, 1]]);
      else expect([result, calls]).toEqual([{ value: 'm0', repeated: false, sentMs: 0 }, [1, 0]]);
      expect(members.map(({ isSlow, suspected }) => [isSlow, suspected])).toEqual([
        [true, false],
        [false, false],
      ]);
    }
  });

  test('waits for the last one when all are slow', async () => {
    const { result, tookMs } = await run('read', 'slow', 'slow', 'slow');
    expect([result, tookMs]).toEqual([{ value: 'm2', repeated: false, sentMs: 900 }, 2_900]);
  });

  test('leaves a member without a leader if it may', async () => {
    expect((await run('read', 'leaderless', 'answers')).result).toMatchObject({ value: 'm1' });
    expect(await run('write', 'leaderless', 'answers')).toEqual({ result: 'timeout', tookMs: 3_500, calls: [1, 0] });
  });

  test('ends at its deadline, also while it still asks whether the member is alive', async () => {
    expect(await run('write', 'fading')).toEqual({ result: 'timeout', tookMs: 3_500, calls: [1] });
    expect(await run('read', 'fading')).toEqual({ result: 'unavailable', tookMs: 3_500, calls: [1] });
  });

  test('says "unavailable" only when nothing is in doubt', async () => {
    expect((await run('read', 'frozen', 'frozen')).result).toBe('unavailable');
    expect((await run('write', 'not-applied')).result).toBe('unavailable');
    expect((await run('repeatable write', 'frozen', 'not-applied')).result).toBe('timeout');
    // An error of the second sending does not tell what became of the first.
    expect((await run('repeatable write', 'frozen', 'lease-gone')).result).toBe('timeout');
    expect((await run('repeatable write', 'lease-gone')).result).toBe('lease-gone');
  });

  test('ends at once when the store is closed, and is cancelled', async () => {
    for (const [kind, expected] of [
      ['read', 'unavailable'],
      ['write', 'timeout'],
      ['repeatable write', 'timeout'],
    ] as const) {
      const { clock, close, members, end } = await outcome(kind, 'frozen');
      await clock.advance(100);
      close();
      expect(await end()).toEqual({ result: expected, tookMs: 100, calls: [1] });
      expect(members[0]?.cancelled).toBe(1);
    }
  });
});
