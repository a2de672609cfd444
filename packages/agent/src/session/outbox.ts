// SPDX-License-Identifier: Apache-2.0
import type { Hello, HostReport, SessionRequest } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';

/** Makes a message at the moment when the transport has room for it, so that it is never stale. */
export interface OutboxSources {
  readonly hello: Hello;
  /** Numbers the heartbeat and notes its send time. */
  nextHeartbeat(): bigint;
  inventory(): HostInventory | undefined;
  report(): HostReport | undefined;
}

type Kind = 'heartbeat' | 'inventory' | 'report';

/** A heartbeat never waits behind anything but the message that the transport is already writing. */
const URGENCY: readonly Kind[] = ['heartbeat', 'inventory', 'report'];

/**
 * What waits to be sent to one controller: hello first, then at most one of each kind. Nothing is
 * queued but the fact that something is due, so a slow link gets the newest report instead of all,
 * and the queue cannot grow.
 */
export class Outbox implements AsyncIterable<SessionRequest> {
  readonly #sources: OutboxSources;
  readonly #due = new Set<Kind>();
  #helloSent = false;
  #closed = false;
  #waiting: ((result: IteratorResult<SessionRequest, undefined>) => void) | undefined;

  constructor(sources: OutboxSources) {
    this.#sources = sources;
  }

  mark(kind: Kind): void {
    this.#due.add(kind);
    this.#feed();
  }

  /** Ends the stream; what was due is dropped. */
  close(): void {
    this.#closed = true;
    this.#feed();
  }

  [Symbol.asyncIterator](): AsyncIterator<SessionRequest, undefined> {
    return {
      next: () =>
        new Promise((resolve) => {
          this.#waiting = resolve;
          this.#feed();
        }),
      return: () => {
        this.close();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  #feed(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    const message = this.#closed ? undefined : this.#next();
    if (message === undefined && !this.#closed) return;
    this.#waiting = undefined;
    waiting(message === undefined ? { done: true, value: undefined } : { done: false, value: { message } });
  }

  #next(): SessionRequest['message'] {
    if (!this.#helloSent) {
      this.#helloSent = true;
      return { $case: 'hello', value: this.#sources.hello };
    }
    for (const kind of URGENCY) {
      if (!this.#due.delete(kind)) continue;
      const message = this.#make(kind);
      if (message !== undefined) return message;
    }
    return undefined;
  }

  #make(kind: Kind): SessionRequest['message'] {
    switch (kind) {
      case 'heartbeat':
        return { $case: 'heartbeat', value: { number: this.#sources.nextHeartbeat() } };
      case 'inventory': {
        const value = this.#sources.inventory();
        return value && { $case: 'inventory', value };
      }
      case 'report': {
        const value = this.#sources.report();
        return value && { $case: 'report', value };
      }
    }
  }
}
