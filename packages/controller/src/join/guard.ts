// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { CallGuard } from '../api/service.ts';

/** Hosts join one after the other; this many at once is a rack. Whoever floods the port gets no more of the controller. */
const AT_ONCE_MAX = 4;
/** A place is taken before the request is read, so one address that is slow to send must not hold all of them. */
const AT_ONCE_MAX_PER_ADDRESS = 2;
/** How long a refusal takes: at most eight guesses a second, on a secret of 256 bits. */
const REFUSAL_MS = 500;

/**
 * Between anybody who reaches the port and the cluster: one attempt, from the first byte of its request on. JOIN_BUSY when too
 * many are under way; a refused one occupies its place for a while.
 */
export function joinGuard(clock: Clock): CallGuard {
  const running = new Map<string, number>();
  let all = 0;
  return async (address, work) => {
    const own = running.get(address) ?? 0;
    if (all >= AT_ONCE_MAX || own >= AT_ONCE_MAX_PER_ADDRESS) throw busy(all >= AT_ONCE_MAX ? null : address);
    running.set(address, own + 1);
    all++;
    try {
      return await work();
    } catch (error) {
      await sleep(clock, REFUSAL_MS);
      throw error;
    } finally {
      all--;
      const left = (running.get(address) ?? 1) - 1;
      if (left === 0) running.delete(address);
      else running.set(address, left);
    }
  };
}

function busy(address: string | null): BusbarError {
  const hosts = address === null ? `${AT_ONCE_MAX} hosts` : `${AT_ONCE_MAX_PER_ADDRESS} hosts at ${address}`;
  return new BusbarError({
    kind: 'unavailable',
    reason: 'JOIN_BUSY',
    message: `${hosts} are joining, or trying to, at this moment`,
    hint: 'try again in a few seconds, or with another controller',
  });
}
