// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Random } from '@busbar/core/random';

/**
 * One direction of a simulated stream: messages arrive in order, each after a latency of its own, for
 * as long as `up()` says that the two ends can reach each other. A cut loses what is under way and tells nobody, as networks do.
 */
export async function* delayed<T>(
  source: AsyncIterable<T>,
  deps: { readonly clock: Clock; readonly random: Random; readonly up: () => boolean; readonly signal: AbortSignal },
): AsyncIterable<T> {
  const { clock, random, up, signal } = deps;
  const arrived: T[] = [];
  let ended = false;
  let failure: unknown = null;
  let wake = () => {};
  let lastArrivalMs = 0;
  const onAbort = () => {
    ended = true;
    wake();
  };
  signal.addEventListener('abort', onAbort, { once: true });
  void (async () => {
    try {
      for await (const message of source) {
        if (signal.aborted) return;
        if (!up()) continue;
        // A switched network in one cabinet: a fraction of a millisecond to a few.
        lastArrivalMs = Math.max(lastArrivalMs, clock.nowMs() + 0.2 + random.next() * 3);
        clock.timer(lastArrivalMs - clock.nowMs(), () => {
          if (!up()) return;
          arrived.push(message);
          wake();
        });
      }
      ended = true;
    } catch (error) {
      failure = error;
      ended = true;
    }
    wake();
  })();
  try {
    for (;;) {
      const next = arrived.shift();
      if (next !== undefined) yield next;
      else if (signal.aborted) throw new Error('the link is gone');
      else if (ended) {
        if (failure !== null) throw failure;
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
