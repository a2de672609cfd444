// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';

/**
 * The memory of requests that are not complete yet. A request may have 4 MiB; a client that begins thousands and finishes
 * none would take gigabytes. So of each address only a few are read at a time; those behind them wait unread, in the
 * peer's own buffers, since both transports have flow control. Whoever is being read has a deadline.
 */
export interface Intake {
  /** Calls `begin` when the request may be read, now or later. The result is called when it is there, or given up. */
  enter(address: string, begin: () => void, tooSlow: (error: BusbarError) => void): () => void;
}

/** 32 requests of 4 MiB are 128 MiB: what one peer can take. Requests of usual size pass in microseconds. */
export const READ_AT_ONCE = 32;
/** 4 MiB over a link of 4 Mbit/s. Watches and consoles are over when their first message is there. */
export const READ_DEADLINE_MS = 10_000;

interface Lane {
  reading: number;
  readonly waiting: Set<() => void>;
}

export function newIntake(clock: Clock): Intake {
  const lanes = new Map<string, Lane>();
  return {
    enter(address, begin, tooSlow) {
      const lane = lanes.get(address) ?? { reading: 0, waiting: new Set() };
      lanes.set(address, lane);
      let state: 'waiting' | 'reading' | 'left' = 'waiting';
      let timer: Disposable | null = null;
      const start = () => {
        lane.waiting.delete(start);
        lane.reading++;
        state = 'reading';
        timer = clock.timer(READ_DEADLINE_MS, () => {
          leave();
          tooSlow(requestTooSlow());
        });
        begin();
      };
      const leave = () => {
        timer?.[Symbol.dispose]();
        lane.waiting.delete(start);
        if (state === 'reading') lane.reading--;
        state = 'left';
        const [next] = lane.waiting;
        if (next !== undefined && lane.reading < READ_AT_ONCE) next();
        if (lane.reading === 0 && lane.waiting.size === 0) lanes.delete(address);
      };
      if (lane.reading < READ_AT_ONCE) start();
      else lane.waiting.add(start);
      return leave;
    },
  };
}

function requestTooSlow(): BusbarError {
  return new BusbarError({
    kind: 'timeout',
    reason: 'REQUEST_TOO_SLOW',
    message: `the request was not complete within ${READ_DEADLINE_MS} ms`,
    hint: 'send the whole request at once',
  });
}
