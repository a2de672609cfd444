// SPDX-License-Identifier: Apache-2.0
import type { Event } from '@busbar/proto/gen/busbar/v1/event';

/**
 * Carries events out of the cluster. Fan-out only: the truth is in the store, and whoever must miss nothing watches the API.
 * Implementations: NATS (nats.ts), memory (for tests and simulation), none. What conformance.ts says holds for all but none.
 */
export interface EventBus {
  /**
   * Takes the event and returns at once, whatever the network does. In order, and usually once: what may have been lost is
   * sent again under the same message id. A bus that gets behind drops the oldest and counts them.
   */
  publish(event: Event): void;
  /** How many events were dropped so far. */
  dropped(): number;
  /** Ends within a second; what is not out by then is dropped. */
  close(): Promise<void>;
}

export const NO_BUS: EventBus = { publish() {}, dropped: () => 0, close: async () => {} };

/** A bus that just keeps what it was given. */
export function memoryBus(): EventBus & { readonly events: readonly Event[] } {
  const events: Event[] = [];
  return { events, publish: (event) => void events.push(event), dropped: () => 0, close: async () => {} };
}

/** `busbar.CLUSTER.event.KIND.ID.REASON`: a subscriber picks by any part, e.g. `busbar.*.event.vm.>`. */
export function subjectOf(cluster: string, event: Event): string {
  return ['busbar', cluster, 'event', event.subject?.kind ?? '', event.subject?.id ?? '', event.reason]
    .map(token)
    .join('.');
}

/** Everything that a cluster ever publishes. */
export function allSubjects(cluster: string): string {
  return `busbar.${token(cluster)}.>`;
}

/**
 * One part of a NATS subject. Ids, host names and reasons are what they are; in anything else, what separates parts, stands for
 * many, or is no plain ASCII is written as its UTF-8 bytes, %XX, so that two names never become one.
 */
function token(text: string): string {
  if (text === '') return '%';
  return [...Buffer.from(text)]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      return /[A-Za-z0-9_-]/.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    })
    .join('');
}
