// SPDX-License-Identifier: Apache-2.0
import { type Clock, withDeadline } from '@busbar/core/clock/clock';

/** Who opens a stream has its first message at hand. Without a limit, silent streams would pile up. */
export const FIRST_MESSAGE_DEADLINE_MS = 5_000;

export async function firstMessage<T>(
  clock: Clock,
  iterator: AsyncIterator<T>,
  what: string,
): Promise<IteratorResult<T>> {
  try {
    return await withDeadline(clock, FIRST_MESSAGE_DEADLINE_MS, `waiting for ${what}`, () => iterator.next());
  } catch (error) {
    // Not awaited: an iterator that waits for its sender would not let go.
    void iterator.return?.().catch(() => {});
    throw error;
  }
}
