// SPDX-License-Identifier: Apache-2.0
import { counter, gauge, histogram, LONG_BUCKETS, SHORT_BUCKETS } from '@busbar/core/metrics';

/** Every metric of the controller but those of its native child (packages/native/src/metrics.ts). docs/metrics.md lists them. */
export const CONTROLLER_METRICS = {
  info: gauge('busbar_controller_info', 'Always 1; says which version runs.', ['version']),

  apiRequests: counter('busbar_api_requests_total', 'API calls that have ended, streams among them.', [
    'method',
    'transport',
    'code',
  ]),
  apiSeconds: histogram('busbar_api_request_seconds', 'Time from a unary call to its answer.', SHORT_BUCKETS, [
    'method',
    'transport',
  ]),
  apiInFlight: gauge('busbar_api_requests_in_flight', 'Unary calls that are being worked on.', ['transport']),
  apiStreams: gauge('busbar_api_streams_open', 'Watches, consoles, logs and imports that are open.', [
    'method',
    'transport',
  ]),

  storeSeconds: histogram(
    'busbar_store_call_seconds',
    'Time of a call of the cluster store, other members it went on to included. Outcome "lost-race": a transaction whose comparison failed.',
    SHORT_BUCKETS,
    ['call', 'outcome'],
  ),
  storeBytes: gauge(
    'busbar_store_bytes',
    "Of the fullest etcd member: its database's file, what of it is in use, and the quota that it is configured with.",
    ['what'],
  ),
  refusedWrites: counter(
    'busbar_store_writes_refused_total',
    'Changes of API callers that were refused so that the store does not fill up.',
    ['reason'],
  ),
  viewBehind: gauge(
    'busbar_view_behind_revisions',
    'How far the view in memory is behind the newest revision that the store has answered with.',
    [],
  ),
  viewRelists: counter('busbar_view_relists_total', 'How often the whole store was listed; once at the start.', []),
  viewRecords: gauge('busbar_view_records', 'Records in memory.', ['kind']),

  leader: gauge('busbar_leader', '1 while this controller leads.', []),
  leaderTerm: gauge(
    'busbar_leader_term',
    'Number of the term in which this controller leads; 0 while it does not.',
    [],
  ),
  leaderRemaining: gauge(
    'busbar_leader_remaining_seconds',
    'Until when this leader may rely on its last renewal; 0 while it does not lead.',
    [],
  ),
  leaderChanges: counter('busbar_leader_changes_total', 'Terms of this controller that began or ended.', ['change']),

  roundSeconds: histogram(
    'busbar_round_seconds',
    'Time of a part of the leader\'s rounds; "all" is the whole round.',
    SHORT_BUCKETS,
    ['part'],
  ),
  roundFailures: counter(
    'busbar_round_failures_total',
    "Leader's rounds that broke off; the next one tries again.",
    [],
  ),

  operations: gauge('busbar_operations', 'Operations in the store. Ended ones are kept for a day.', ['saga', 'state']),
  operationOldest: gauge(
    'busbar_operation_oldest_seconds',
    'Age of the oldest operation that has not ended: the age of the queue.',
    ['saga'],
  ),
  operationWaiting: gauge(
    'busbar_operation_waiting_seconds',
    'Age of the oldest operation that the leader has not begun.',
    ['saga'],
  ),
  vms: gauge('busbar_vms', 'VMs by phase.', ['phase']),
  hosts: gauge('busbar_hosts', 'Hosts by state, as the leader recorded it.', ['state']),

  alarms: gauge('busbar_alarms', 'Alarms that stand, as this controller sees them or the leader recorded them.', [
    'alarm',
    'severity',
  ]),

  agentsConnected: gauge('busbar_agents_connected', 'Agents with a session with this controller.', []),
  agentSilence: gauge(
    'busbar_agent_silence_seconds',
    'Time since this controller heard a heartbeat or anything else of an agent.',
    ['host'],
  ),

  storageSeconds: histogram('busbar_storage_call_seconds', 'Time of a call of the storage driver.', LONG_BUCKETS, [
    'call',
    'outcome',
  ]),
} as const;
