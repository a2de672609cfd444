// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Revision } from '@busbar/core/ids';
import { type Metrics, outcomeOf, timed } from '@busbar/core/metrics';
import { CONTROLLER_METRICS } from '../telemetry/metrics.ts';
import type { ClusterStore, StoreLease, TransactionResult } from './cluster-store.ts';

export interface MeasuredStore extends ClusterStore {
  /** The newest revision that any call was answered with; what the view should know by now. */
  newestRevision(): Revision;
}

/** A store whose calls are timed, the renewals of its leases among them. Watches last as long as they like and are not. */
export function measuredStore(store: ClusterStore, metrics: Metrics, clock: Clock): MeasuredStore {
  const seconds = metrics.histogram(CONTROLLER_METRICS.storeSeconds);
  let newest = 0n as Revision;
  const see = <T extends { readonly revision: Revision }>(answer: T): T => {
    if (answer.revision > newest) newest = answer.revision;
    return answer;
  };
  const time = <T>(call: string, work: () => Promise<T>, outcome?: (value: T) => string): Promise<T> => {
    let lost = 'ok';
    const whole =
      outcome === undefined
        ? work
        : async () => {
            const value = await work();
            lost = outcome(value);
            return value;
          };
    return timed(clock, whole, (took, error) => {
      seconds.observe({ call, outcome: error === null ? lost : outcomeOf(error) }, took);
    });
  };
  const lease = (held: StoreLease): StoreLease => ({
    id: held.id,
    ttlMs: held.ttlMs,
    renew: () => time('renew-lease', () => held.renew()),
    validUntilMs: () => held.validUntilMs(),
    revoke: () => time('revoke-lease', () => held.revoke()),
  });
  return {
    get: async (key) => see(await time('get', () => store.get(key))),
    list: async (prefix, options) => see(await time('list', () => store.list(prefix, options))),
    txn: async (transaction) => see(await time('txn', () => store.txn(transaction), raceOf)),
    watch: (prefix, after, signal) => store.watch(prefix, after, signal),
    grantLease: async (ttlMs) => lease(await time('grant-lease', () => store.grantLease(ttlMs))),
    history: async () => see(await time('history', () => store.history())),
    usage: () => time('usage', () => store.usage()),
    compact: (revision) => time('compact', () => store.compact(revision)),
    ping: (deadlineMs) => time('ping', () => store.ping(deadlineMs)),
    close: () => store.close(),
    newestRevision: () => newest,
  };
}

function raceOf(result: TransactionResult): string {
  return result.succeeded ? 'ok' : 'lost-race';
}
