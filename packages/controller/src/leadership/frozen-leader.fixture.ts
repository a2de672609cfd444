// SPDX-License-Identifier: Apache-2.0
// A controller as a process of its own that leads and writes all the time, so that a test can freeze it in the middle.

import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { fixedTls } from '@busbar/pki/tls/source';
import { leaderFor } from '../leader/leader.ts';
import { EtcdStore } from '../store/etcd.ts';
import { ClusterView } from '../view/view.ts';
import { Leadership, type LeaderTerm } from './leadership.ts';

/** From the test to the process. */
export interface Orders {
  readonly members: readonly [string, ...string[]];
  /** Of the keys that it writes. */
  readonly prefix: string;
  /** PEM, as text. */
  readonly tls: { readonly ca: string; readonly certificate: string; readonly key: string };
}

/** From the process to the test, after each write. */
export interface Report {
  readonly term: string;
  readonly written: number;
  /** By this controller's own clock, before anything was sent. */
  readonly refusedByClock: number;
  /** By the store, because of the term that they carry. */
  readonly refusedByStore: number;
  readonly unknown: number;
}

const PAUSE_MS = 10;

process.once('message', ({ members, prefix, tls }: Orders) => {
  const store = new EtcdStore({
    members,
    tls: fixedTls({
      ca: Buffer.from(tls.ca),
      certificate: Buffer.from(tls.certificate),
      key: Buffer.from(tls.key),
    }),
    clock: systemClock,
    log: silentLogger,
  });
  const leadership = new Leadership({
    store,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    host: 'frozen',
    address: '10.0.0.9:7800',
  });
  leadership.onChange((term) => {
    if (term !== null) void work(store, term, prefix);
  });
  void leadership.run(new AbortController().signal);
});
process.once('disconnect', () => process.exit(0));

/** Writes as the leader does, and besides as a request does that had left before the term ended: without asking the clock. */
async function work(store: EtcdStore, term: LeaderTerm, prefix: string): Promise<void> {
  // Its keys are no records of ours: no events come of them, and the view may stay empty.
  const view = new ClusterView({ store, clock: systemClock, logger: silentLogger });
  const leader = leaderFor({ store, view, clock: systemClock, random: systemRandom }, term, term.signal);
  const counts = { written: 0, refusedByClock: 0, refusedByStore: 0, unknown: 0 };
  for (let serial = 0; ; serial++) {
    const writes = (how: string) => [{ kind: 'put', key: `${prefix}${how}`, value: String(serial) } as const];
    for (const sending of [
      () => leader.txn({ compare: [], writes: writes('checked') }),
      () => store.txn({ compare: [term.fence()], writes: writes('late') }),
    ]) {
      try {
        if ((await sending()).succeeded) counts.written++;
        else counts.refusedByStore++;
      } catch (error) {
        if ((error as { reason?: string }).reason === 'LEADERSHIP_LOST') counts.refusedByClock++;
        else counts.unknown++;
      }
    }
    process.send?.({ term: String(term.createRevision), ...counts } satisfies Report);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}
