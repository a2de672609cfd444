// SPDX-License-Identifier: Apache-2.0
/**
 * Changes as they happen. A watch outlives the controller it began at: it resumes from the last revision at the next
 * one. Where the stream cannot resume without a gap (RESYNC) it begins anew with everything that exists.
 */
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import type { Metadata } from 'nice-grpc';
import { type Api, isUnavailable } from '../api/api.ts';
import { UnreachableError } from '../api/rpc-error.ts';
import type { Session } from '../cli/session.ts';
import { note } from '../output/print.ts';
import type { Change, Listed } from './resource.ts';

/** A cluster without any controller for this long is worth ending the watch with an error. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 500;

/** Never ends by itself. RESYNC is passed on: what comes after it is everything that exists, again. */
export async function* streamChanges<T, F>(
  session: Session,
  api: Api,
  resource: Pick<Listed<T, F>, 'watch'>,
  filter: F,
): AsyncGenerator<Change<T>> {
  let revision = 0n;
  let lostAt: number | undefined;
  for (;;) {
    let trailer: Metadata | undefined;
    let failed: ((error: unknown, trailer: Metadata | undefined) => unknown) | undefined;
    // Ends the call also when the reader leaves in the middle.
    const left = new AbortController();
    try {
      const signal = AbortSignal.any([session.signal, left.signal]);
      const stream = await resource.watch(api, revision, { signal, onTrailer: (t) => (trailer = t) }, filter);
      failed = stream.failed;
      for await (const change of stream.changes) {
        if (lostAt !== undefined) note(session.io, `watch goes on at ${stream.address}`);
        lostAt = undefined;
        if (change.progress !== undefined) revision = change.progress;
        if (change.change === ChangeKind.RESYNC) revision = 0n;
        yield change;
        if (change.change === ChangeKind.RESYNC) break;
      }
    } catch (error) {
      session.signal.throwIfAborted();
      const described = failed === undefined ? error : failed(error, trailer);
      if (!isUnavailable(described) && !(described instanceof UnreachableError)) throw described;
      lostAt ??= performance.now();
      if (performance.now() - lostAt > PATIENCE_MS) throw described;
      note(session.io, `watch interrupted (${described.message}), trying the next controller`);
    } finally {
      left.abort();
    }
    await api.pause(RETRY_MS);
  }
}
