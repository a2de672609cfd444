// SPDX-License-Identifier: Apache-2.0
import type { Pulse } from '@busbar/core/pulse';
import { type Check, type HealthSource, loopCheck } from '@busbar/telemetry/health';

/** A round waits for a listing, which is given up after 15 s; sessions have a timer at least every second. */
const RECONCILER_LIMIT_MS = 45_000;
const SESSIONS_LIMIT_MS = 10_000;

export interface Readiness {
  readonly controllers: number;
  readonly acknowledging: number;
  readonly leaseHeld: boolean;
  /** What is wrong with the hypervisor; empty on a witness, which has none. */
  readonly hypervisor: string;
  readonly hasInventory: boolean;
}

export function agentHealth(deps: {
  /** Undefined on a witness. */
  readonly reconciler: Pulse | undefined;
  readonly sessions: Pulse;
  readonly readiness: () => Readiness;
}): HealthSource {
  const { reconciler, sessions, readiness } = deps;
  return {
    live: () => [
      loopCheck('heartbeats', sessions, SESSIONS_LIMIT_MS),
      ...(reconciler === undefined ? [] : [loopCheck('VM reconciler', reconciler, RECONCILER_LIMIT_MS)]),
    ],
    ready: () => Promise.resolve(checks(readiness())),
  };
}

function checks(now: Readiness): readonly Check[] {
  const { acknowledging, controllers } = now;
  return [
    {
      name: 'lease',
      problem: now.leaseHeld ? '' : `${acknowledging} of ${controllers} controllers acknowledge: no majority, no lease`,
    },
    { name: 'hypervisor', problem: now.hypervisor },
    { name: 'inventory', problem: now.hasInventory ? '' : 'not read yet' },
  ];
}
