// SPDX-License-Identifier: Apache-2.0
import type { BusbarError } from '@busbar/core/errors';

/** Tells once why a certificate does not count any more: `onEnd` or `onRevoked` of an Admission. */
export type Ending = (callback: (why: BusbarError) => void) => Disposable;

/**
 * A stream that ends as soon as the certificate it was opened with does, whatever its source waits for; the signal tells the
 * source. Nobody else would: the stream itself asks no more who is calling.
 */
export async function* untilEnded<T>(
  ending: Ending,
  signal: AbortSignal,
  open: (signal: AbortSignal) => AsyncIterable<T>,
): AsyncIterable<T> {
  // One signal that follows the caller's: AbortSignal.any costs every message of every watch.
  const end = new AbortController();
  const hungUp = () => end.abort(signal.reason);
  if (signal.aborted) hungUp();
  else signal.addEventListener('abort', hungUp, { once: true });
  let reason = null as BusbarError | null;
  let wake = () => {};
  using _ending = ending((why) => {
    reason = why;
    end.abort(why);
    wake();
  });
  const iterator = open(end.signal)[Symbol.asyncIterator]();
  try {
    for (;;) {
      // Not Promise.race with one promise for the whole stream: that would keep a reaction for each message.
      const next = await new Promise<IteratorResult<T> | null>((resolve, reject) => {
        wake = () => resolve(null);
        if (reason !== null) wake();
        else iterator.next().then(resolve, reject);
      });
      if (reason !== null) throw reason;
      if (next === null) return;
      if (next.done) return;
      yield next.value;
    }
  } finally {
    signal.removeEventListener('abort', hungUp);
    const returned = iterator.return?.();
    // Not awaited when the certificate has ended: a source that waits for its caller would not let go.
    if (reason !== null) returned?.catch(() => {});
    else await returned;
  }
}
