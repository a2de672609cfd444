// SPDX-License-Identifier: Apache-2.0
import { type Clock, withDeadline } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { Pulse } from '@busbar/core/pulse';
import { type HealthSource, loopCheck, READY_DEADLINE_MS } from '@busbar/telemetry/health';
import type { Leadership } from '../leadership/leadership.ts';
import type { ClusterView } from '../view/view.ts';

/** Its longest wait is for a campaign: a lease and a transaction, 3.5 s each at most. */
const LEADERSHIP_LIMIT_MS = 20_000;
/**
 * A round may write for every VM and host, and ends with the first write that the store does not answer; thousands of
 * writes at a slow disk's 20 ms stay below this.
 */
const ROUND_LIMIT_MS = 120_000;

export function controllerHealth(deps: {
  readonly view: ClusterView;
  readonly leadership: Leadership;
  readonly rounds: Pulse;
  readonly clock: Clock;
}): HealthSource {
  const { view, leadership, rounds, clock } = deps;
  return {
    live: () => [
      loopCheck('leadership loop', leadership.pulse, LEADERSHIP_LIMIT_MS),
      loopCheck('leader rounds', rounds, ROUND_LIMIT_MS),
    ],
    async ready() {
      // What every API call needs: the store answers, and the view has what it answered.
      const problem = await withDeadline(clock, READY_DEADLINE_MS, 'reading from the cluster store', () =>
        view.fresh(),
      ).then(
        () => '',
        (error: unknown) => errorChain(error),
      );
      return [{ name: 'cluster store and view', problem }];
    },
  };
}
