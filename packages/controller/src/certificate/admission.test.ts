// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { BusbarError } from '@busbar/core/errors';
import { Certificate } from '@busbar/proto/gen/busbar/v1/certificate';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { PresentedCertificate } from '../api/authenticate.ts';
import { putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';
import { admission, LOOK_EVERY_MS } from './admission.ts';

const NOW = new Date('2030-01-01T00:00:00Z');
const HOUR_MS = 3_600_000;
const after = (ms: number) => new Date(NOW.getTime() + ms);
const shown = (serial: string, lifeMs = HOUR_MS): PresentedCertificate => ({
  serial,
  uris: [],
  ips: [],
  notBefore: NOW,
  notAfter: after(lifeMs),
});

let rig: Rig;
let told: string[];
const watch = (certificate: PresentedCertificate, name = certificate.serial) =>
  rig.admission.onEnd(certificate, (why) => told.push(`${name} ${why.reason}`));
async function record(certificate: Partial<Certificate> & { readonly serial: string }) {
  const write = putRecord('certificate', certificate.serial, { certificate: Certificate.fromPartial(certificate) });
  const { revision } = await rig.run(rig.api.store.txn({ compare: [], writes: [write] }));
  await rig.run(rig.view.waitFor(revision));
}
beforeEach(async () => {
  rig = new Rig(1, NOW);
  await rig.start();
  told = [];
});
afterEach(() => rig.stop());
/** What start and writes have taken of the virtual time is little and not nothing. */
const leftMs = (end: Date) => end.getTime() - rig.clock.wallTime().getTime();

it('tells the end to the millisecond, once, and to each stream', async () => {
  watch(shown('a'), 'first');
  watch(shown('a'), 'second');
  watch(shown('b', 2 * HOUR_MS));
  watch(shown('a'), 'let go')[Symbol.dispose]();
  await rig.clock.advance(leftMs(after(HOUR_MS)));
  expect(told).toEqual([]);
  await rig.clock.advance(1);
  expect(told).toEqual(['first CERTIFICATE_EXPIRED', 'second CERTIFICATE_EXPIRED']);
  await rig.clock.advance(2 * HOUR_MS);
  expect(told.slice(2)).toEqual(['b CERTIFICATE_EXPIRED']);
});

it('tells the end of one that ends before another that is waited for already', async () => {
  watch(shown('long', 24 * HOUR_MS));
  watch(shown('short', 1_500));
  await rig.clock.advance(leftMs(after(1_501)));
  expect(told).toEqual(['short CERTIFICATE_EXPIRED']);
});

it('tells it at once when it is over already', async () => {
  await rig.clock.advance(HOUR_MS + 1);
  watch(shown('a'));
  expect(told).toEqual(['a CERTIFICATE_EXPIRED']);
});

it.each([
  ['set forward past the end is noticed', 2 * HOUR_MS, LOOK_EVERY_MS, ['a CERTIFICATE_EXPIRED']],
  ['set back makes it last as long as it says', -HOUR_MS, HOUR_MS + LOOK_EVERY_MS, []],
])('a wall clock %s', async (_name, jumpMs, laterMs, expected) => {
  watch(shown('a'));
  rig.clock.jumpWall(jumpMs);
  await rig.clock.advance(laterMs);
  expect(told).toEqual(expected);
});

it('tells that one was replaced when its time comes, and the time may come later than the watching', async () => {
  await record({ serial: 'a', successorSerial: 'b' });
  watch(shown('a'));
  await record({ serial: 'a', successorSerial: 'b', replaceTime: after(600_000) });
  await rig.clock.advance(leftMs(after(600_000)));
  expect(told).toEqual([]);
  await rig.clock.advance(1);
  expect(told).toEqual(['a CERTIFICATE_REPLACED']);
  expect(() => rig.admission.check(shown('a'))).toThrow(/its successor b is in use/);
});

it('does not end what an agent has open by time, only by revocation', async () => {
  const ends: BusbarError[] = [];
  rig.admission.onRevoked(shown('a'), (why) => ends.push(why));
  await record({ serial: 'a', successorSerial: 'b', replaceTime: after(60_000) });
  await rig.clock.advance(24 * HOUR_MS);
  expect(ends).toEqual([]);
  await record({ serial: 'a', revokeTime: after(0) });
  expect(ends.map(({ reason }) => reason)).toEqual(['CERTIFICATE_REVOKED']);
});

it('keeps no timer for nobody', () => {
  let timers = 0;
  const clock = new VirtualClock(NOW);
  const counted: Clock = {
    nowMs: () => clock.nowMs(),
    wallTime: () => clock.wallTime(),
    turn: () => clock.turn(),
    timer(delayMs, callback) {
      timers++;
      const timer = clock.timer(delayMs, callback);
      return {
        [Symbol.dispose]() {
          timers--;
          timer[Symbol.dispose]();
        },
      };
    },
  };
  const gate = admission(rig.view, counted);
  const held = [shown('a'), shown('a'), shown('b')].map((each) => gate.onEnd(each, () => {}));
  held.push(gate.onRevoked(shown('a'), () => {}));
  expect(timers).toBe(1);
  for (const each of held) each[Symbol.dispose]();
  expect(timers).toBe(0);
});
