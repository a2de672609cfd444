// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '../errors.ts';

/**
 * The only door to time. Safety decisions use monotonic time alone (a wall clock may jump);
 * wall time is for people and records. VirtualClock replaces it in tests and simulation.
 */
export interface Clock {
  /** Monotonic milliseconds since an arbitrary start. */
  nowMs(): number;
  /** Wall time, for records and messages only. */
  wallTime(): Date;
  /** Runs `callback` once after `delayMs`; disposing the handle before cancels it. */
  timer(delayMs: number, callback: () => void): Disposable;
  /** Resolves when the event loop has been round once: what was written goes out, and what has come in is taken up. */
  turn(): Promise<void>;
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallTime: () => new Date(),
  timer(delayMs, callback) {
    const handle = setTimeout(callback, delayMs);
    return { [Symbol.dispose]: () => clearTimeout(handle) };
  },
  turn: () => new Promise((resolve) => setImmediate(resolve)),
};

/** Resolves after `delayMs`, or rejects with the signal's reason when aborted before. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason as Error);
    const timer = clock.timer(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    function onAbort() {
      timer[Symbol.dispose]();
      reject(signal?.reason as Error);
    }
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/**
 * Runs `work` under a deadline. When it passes, the work's signal aborts and the caller gets a
 * timeout error at once, whether or not the work reacts.
 */
export function withDeadline<T>(
  clock: Clock,
  deadlineMs: number,
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
  parent?: AbortSignal,
): Promise<T> {
  const abort = new AbortController();
  return new Promise<T>((resolve, reject) => {
    const finish = (settle: () => void) => {
      timer[Symbol.dispose]();
      parent?.removeEventListener('abort', onParentAbort);
      settle();
    };
    const timer = clock.timer(deadlineMs, () => {
      const error = new BusbarError({
        kind: 'timeout',
        reason: 'DEADLINE_EXCEEDED',
        message: `${what} did not finish within ${deadlineMs} ms`,
      });
      finish(() => reject(error));
      abort.abort(error);
    });
    function onParentAbort() {
      finish(() => reject(parent?.reason as Error));
      abort.abort(parent?.reason);
    }
    if (parent?.aborted) return onParentAbort();
    parent?.addEventListener('abort', onParentAbort, { once: true });
    work(abort.signal).then(
      (value) => finish(() => resolve(value)),
      (error: unknown) => finish(() => reject(error as Error)),
    );
  });
}
