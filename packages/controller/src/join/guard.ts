// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';

/** Hosts join one after the other; this many at once is a rack. Whoever floods the port gets no more of the controller. */
const AT_ONCE_MAX = 4;
/** How long a refusal takes: at most eight guesses a second, on a secret of 256 bits. */
const REFUSAL_MS = 500;

export interface JoinGuard {
  /** Runs one attempt. JOIN_BUSY when too many are under way; a refused one occupies its place for a while. */
  attempt<T>(work: () => Promise<T>): Promise<T>;
}

/** Between anybody who reaches the port and the cluster store. */
export function joinGuard(clock: Clock): JoinGuard {
  let running = 0;
  return {
    async attempt(work) {
      if (running >= AT_ONCE_MAX) {
        throw new BusbarError({
          kind: 'unavailable',
          reason: 'JOIN_BUSY',
          message: `${AT_ONCE_MAX} hosts are joining, or trying to, at this moment`,
          hint: 'try again in a few seconds, or with another controller',
        });
      }
      running++;
      try {
        return await work();
      } catch (error) {
        await sleep(clock, REFUSAL_MS);
        throw error;
      } finally {
        running--;
      }
    },
  };
}
