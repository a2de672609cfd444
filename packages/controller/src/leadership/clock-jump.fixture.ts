// SPDX-License-Identifier: Apache-2.0
// A controller's part in leadership as a process of its own, so that a test can put another wall clock under it.

import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { fixedTls } from '@busbar/pki/tls/source';
import { EtcdStore } from '../store/etcd.ts';
import { Leadership } from './leadership.ts';

/** From the test to the process. */
export interface Orders {
  readonly members: readonly [string, ...string[]];
  /** PEM, as text. */
  readonly tls: { readonly ca: string; readonly certificate: string; readonly key: string };
}

/** From the process to the test, several times a second. */
export interface Report {
  readonly wallMs: number;
  /** The term that this controller holds; null while it holds none. */
  readonly term: string | null;
  /** Terms that it has seen begin and end. */
  readonly changes: number;
  /** How often its watch of the leader key, or a call on a fresh connection, failed. */
  readonly failures: readonly string[];
}

const REPORT_EVERY_MS = 200;

process.once('message', ({ members, tls }: Orders) => {
  const open = () =>
    new EtcdStore({
      members,
      tls: fixedTls({
        ca: Buffer.from(tls.ca),
        certificate: Buffer.from(tls.certificate),
        key: Buffer.from(tls.key),
      }),
      clock: systemClock,
      log: silentLogger,
    });
  const failures: string[] = [];
  let changes = 0;
  const leadership = new Leadership({
    store: open(),
    clock: systemClock,
    random: systemRandom,
    log: { ...silentLogger, warn: (_fields, message) => failures.push(message) },
    host: 'jumper',
    address: '10.0.0.9:7800',
  });
  leadership.onChange(() => changes++);
  void leadership.run(new AbortController().signal);
  const report = async () => {
    // A connection of its own each time: certificates are checked against the wall clock.
    const fresh = open();
    await fresh.ping(2_000).catch((error: unknown) => failures.push(String(error)));
    await fresh.close();
    const term = leadership.isLeader()?.createRevision.toString() ?? null;
    const said: Report = { wallMs: systemClock.wallTime().getTime(), term, changes, failures };
    process.send?.(said);
    setTimeout(() => void report(), REPORT_EVERY_MS);
  };
  void report();
});
process.once('disconnect', () => process.exit(0));
