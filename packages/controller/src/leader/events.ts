// SPDX-License-Identifier: Apache-2.0
import type { SubjectEvent } from '../event/derive.ts';
import { info } from '../event/draft.ts';

/** Told by the new leader, in the first transaction of its term: one that never gets so far has changed nothing. */
export function leaderChanged(cluster: string, host: string, term: bigint): SubjectEvent {
  return {
    ...info('LEADER_CHANGED', `${host} leads`, { host, term: String(term) }),
    subject: { kind: 'cluster', id: cluster, name: cluster },
  };
}

/** One for each term, however often its transaction has to be repeated. */
export function leaderEventId(term: bigint): string {
  return `leader-${term}`;
}
