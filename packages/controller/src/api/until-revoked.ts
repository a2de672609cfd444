// SPDX-License-Identifier: Apache-2.0
import { type Admission, certificateRevoked } from '../certificate/admission.ts';
import type { PresentedCertificate } from './authenticate.ts';

/**
 * A stream that ends as soon as the certificate it was opened with is revoked, whatever its source waits for; the signal
 * tells the source. Nobody else would: the connection stays as it is.
 */
export async function* untilRevoked<T>(
  admission: Admission,
  certificate: PresentedCertificate,
  signal: AbortSignal,
  open: (signal: AbortSignal) => AsyncIterable<T>,
): AsyncIterable<T> {
  // One signal that follows the caller's: AbortSignal.any costs every message of every watch.
  const end = new AbortController();
  const hungUp = () => end.abort(signal.reason);
  if (signal.aborted) hungUp();
  else signal.addEventListener('abort', hungUp, { once: true });
  let isRevoked = false;
  let wake = () => {};
  using _revoked = admission.onRevoked(certificate, () => {
    isRevoked = true;
    end.abort();
    wake();
  });
  const iterator = open(end.signal)[Symbol.asyncIterator]();
  try {
    for (;;) {
      // Not Promise.race with one promise for the whole stream: that would keep a reaction for each message.
      const next = await new Promise<IteratorResult<T> | null>((resolve, reject) => {
        wake = () => resolve(null);
        if (isRevoked) wake();
        else iterator.next().then(resolve, reject);
      });
      if (next === null || isRevoked) throw certificateRevoked(certificate);
      if (next.done) return;
      yield next.value;
    }
  } finally {
    signal.removeEventListener('abort', hungUp);
    const returned = iterator.return?.();
    // Not awaited when revoked: a source that waits for its caller would not let go.
    if (isRevoked) returned?.catch(() => {});
    else await returned;
  }
}
