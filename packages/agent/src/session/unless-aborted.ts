// SPDX-License-Identifier: Apache-2.0

/**
 * The promise, or undefined as soon as the signal aborts. For loops that run for months: it leaves nothing behind at
 * the signal. Promise.race with one promise that stands for the signal would add a reaction to it in every round, and
 * each keeps its round's value for as long as the signal lives.
 */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const onAbort = () => resolve(undefined);
    const settle = (end: () => void) => {
      signal.removeEventListener('abort', onAbort);
      end();
    };
    promise.then(
      (value) => settle(() => resolve(value)),
      (error: unknown) => settle(() => reject(error)),
    );
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}
