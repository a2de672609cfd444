// SPDX-License-Identifier: Apache-2.0
import { counter, gauge, histogram, LONG_BUCKETS, SHORT_BUCKETS } from '@busbar/core/metrics';

/** From half a millisecond, a good network's, to the 2.5 s of the lease: a heartbeat that took longer is worth nothing. */
const ROUND_TRIP_BUCKETS = [0.0005, ...SHORT_BUCKETS.filter((seconds) => seconds <= 2.5)];

/** Every metric of the agent but those of its native child (packages/native/src/metrics.ts). docs/metrics.md lists them. */
export const AGENT_METRICS = {
  info: gauge('busbar_agent_info', 'Always 1; says which version runs.', ['version']),

  leaseRemaining: gauge('busbar_lease_remaining_seconds', 'What is left of the lease; 0 without one.', []),
  leaseLosses: counter('busbar_lease_losses_total', 'How often a lease that was held ended.', []),
  controllers: gauge('busbar_controllers', 'Controllers that the configuration names.', []),
  acknowledging: gauge('busbar_controllers_acknowledging', 'Controllers that acknowledge heartbeats now.', []),
  roundTrip: histogram(
    'busbar_heartbeat_round_trip_seconds',
    'Time from sending a heartbeat to its acknowledgement.',
    ROUND_TRIP_BUCKETS,
    ['controller'],
  ),

  roundSeconds: histogram(
    'busbar_agent_round_seconds',
    'Time of a round of the VM reconciler: list, plan, launch.',
    SHORT_BUCKETS,
    [],
  ),
  listFailures: counter(
    'busbar_agent_list_failures_total',
    'Rounds in which the hypervisor did not list its domains.',
    [],
  ),
  domains: gauge('busbar_domains', 'Domains as they are reported, by state.', ['state']),
  discoveries: counter(
    'busbar_domain_changes_total',
    'Domains that came, went or changed state, by what led to the listing that showed it: an event of the hypervisor, or only the listing itself (an event was lost, or there is none for it).',
    ['found_by'],
  ),
  hostDriverSeconds: histogram(
    'busbar_host_driver_call_seconds',
    'Time of a call of the host driver, all its native calls included.',
    LONG_BUCKETS,
    ['call', 'outcome'],
  ),
  memorySeconds: histogram(
    'busbar_memory_write_seconds',
    "Time to write the agent's memory file, two fsyncs included. No VM starts before it is written.",
    SHORT_BUCKETS,
    ['outcome'],
  ),
} as const;
