// SPDX-License-Identifier: Apache-2.0
import { ok, type Result, refuse } from '@busbar/core/result';
import type { Welcome } from '@busbar/proto/gen/busbar/agent/v1/agent';

/** A lease shorter than this ends on every hiccup of a loaded host, a longer one makes fencing pointless. */
const LEASE_TTL_MS = { min: 500, max: 60_000 } as const;
const HEARTBEAT_INTERVAL_MS = { min: 10, max: 5000 } as const;

export interface Terms {
  readonly heartbeatIntervalMs: number;
  readonly leaseTtlMs: number;
}

/**
 * Whether a controller may count for the lease. The argument for the lease needs two majorities of
 * the *same* set to overlap: were the agent to count 2 of its 3 while the cluster has 5, a fence
 * could find a majority that never heard of this host. So a controller that knows another set, or
 * that is not the one configured for the address (the same one twice would vote twice), is refused.
 */
export function verifyWelcome(
  welcome: Welcome,
  expected: string,
  controllers: readonly string[],
): Result<Terms, string> {
  if (welcome.controller !== expected) {
    return refuse(`the controller says it is "${welcome.controller}", but the configuration has "${expected}" there`);
  }
  const theirs = [...new Set(welcome.controllers)].sort();
  const ours = [...controllers].sort();
  if (theirs.join('\n') !== ours.join('\n')) {
    return refuse(
      `controller ${expected} knows controllers ${theirs.join(', ')}, but the configuration has ${ours.join(', ')}`,
    );
  }
  const { heartbeatIntervalMs, leaseTtlMs } = welcome;
  if (!within(leaseTtlMs, LEASE_TTL_MS) || !within(heartbeatIntervalMs, HEARTBEAT_INTERVAL_MS)) {
    return refuse(
      `controller ${expected} asks for a lease of ${leaseTtlMs} ms and heartbeats each ${heartbeatIntervalMs} ms; ` +
        `right are ${LEASE_TTL_MS.min} to ${LEASE_TTL_MS.max} and ${HEARTBEAT_INTERVAL_MS.min} to ${HEARTBEAT_INTERVAL_MS.max}`,
    );
  }
  if (heartbeatIntervalMs * 3 > leaseTtlMs) {
    return refuse(
      `controller ${expected} asks for heartbeats each ${heartbeatIntervalMs} ms with a lease of ${leaseTtlMs} ms: ` +
        'at least three must fit, or one lost heartbeat ends the lease',
    );
  }
  return ok({ heartbeatIntervalMs, leaseTtlMs });
}

function within(value: number, range: { readonly min: number; readonly max: number }): boolean {
  return value >= range.min && value <= range.max;
}
