// SPDX-License-Identifier: Apache-2.0
import { counter, gauge, histogram, LONG_BUCKETS } from '@busbar/core/metrics';

/** Of every child process that hosts a C library; `library` says which. */
export const NATIVE_METRICS = {
  callSeconds: histogram(
    'busbar_native_call_seconds',
    'Time of a call in the child, from sending it to its answer, its wait in a lane not included.',
    LONG_BUCKETS,
    ['library', 'method', 'outcome'],
  ),
  waitSeconds: histogram(
    'busbar_native_wait_seconds',
    'Time that a call waited in its lane before it was sent.',
    LONG_BUCKETS,
    ['library', 'lane'],
  ),
  waiting: gauge('busbar_native_calls_waiting', 'Calls that wait in a lane.', ['library', 'lane']),
  running: gauge('busbar_native_calls_running', 'Calls that the child works on.', ['library']),
  starts: counter('busbar_native_child_starts_total', 'Children started, the first one included.', ['library']),
  refused: counter(
    'busbar_native_calls_refused_total',
    'Calls that were never sent: lane full, child lost or does not start, or out of time while waiting.',
    ['library', 'lane'],
  ),
} as const;
