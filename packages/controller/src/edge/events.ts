// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from 'node:http';
import type { Clock } from '@busbar/core/clock/clock';
import { errorAnswerOf } from '../api/status.ts';

/** A stream of the API as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html). */

/** Proxies and browsers give a silent connection up after a minute or so. */
const KEEP_ALIVE_MS = 15_000;
/** A refusal comes at once; whoever resumes a watch of what never changes shall not wait ten seconds for the header. */
const HEADER_AFTER_MS = 500;
/** How long an EventSource waits before it comes back. */
const RETRY_MS = 1_000;

const HEADER = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-store',
  // For a proxy in between: an event that waits for company in a buffer is late.
  'x-accel-buffering': 'no',
} as const;

interface Message {
  readonly change?: string;
  readonly progress?: { readonly revision?: string };
}

/** One message as an event. `id` is where to resume: the next Last-Event-ID, in the meaning of `revision`. */
export function eventOf(json: unknown): string {
  const { change, progress } = json as Message;
  const event = change === undefined ? '' : `event: ${change.replace('CHANGE_KIND_', '').toLowerCase()}\n`;
  // 0 also after RESYNC: whoever comes back begins anew instead of being sent away once more.
  const id = progress === undefined && change === undefined ? '' : `id: ${progress?.revision ?? '0'}\n`;
  return `${event}${id}data: ${JSON.stringify(json)}\n\n`;
}

/** Tells why a stream that has begun ends: its status is sent already. */
export function fail(response: ServerResponse, error: unknown): void {
  if (response.destroyed || response.writableEnded) return;
  response.write(`event: failure\ndata: ${JSON.stringify(errorAnswerOf(error).body)}\n\n`);
}

/**
 * Sends a stream until it ends or its reader is gone. Never more than one message ahead of the reader: a stream that is not
 * asked for its next message holds none. Throws what the stream throws before its first message.
 */
export async function sendEvents(
  response: ServerResponse,
  stream: AsyncIterable<unknown>,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const messages = stream[Symbol.asyncIterator]();
  const begin = () => {
    if (response.headersSent) return;
    response.writeHead(200, HEADER);
    response.write(`retry: ${RETRY_MS}\n\n`);
  };
  let keepAlive = clock.timer(HEADER_AFTER_MS, function tick() {
    if (response.writableEnded) return;
    begin();
    // A reader that does not read is not alive, and must not pile comments up.
    if (!response.writableNeedDrain) response.write(': keep-alive\n\n');
    keepAlive = clock.timer(KEEP_ALIVE_MS, tick);
  });
  try {
    for (;;) {
      const { done, value } = await messages.next();
      if (done === true) {
        begin();
        return;
      }
      if (response.destroyed || response.writableEnded) return;
      begin();
      if (!response.write(eventOf(value))) await drained(response, signal);
    }
  } catch (error) {
    if (!response.headersSent) throw error;
    fail(response, error);
  } finally {
    keepAlive[Symbol.dispose]();
    // Not awaited: a stream in the middle of a wait ends when its signal aborts.
    void messages.return?.().catch(() => {});
  }
}

function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  if (response.destroyed || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    response.once('drain', done).once('close', done);
    signal.addEventListener('abort', done, { once: true });
  });
}
