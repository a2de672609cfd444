// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Rig } from '../testing/rig.ts';

const GIB = 1024 ** 3;

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const alarms = () => rig.api.alarms.all().map(({ code, severity, subject }) => `${code} ${severity} ${subject}`);

describe('the store', () => {
  it.each([
    ['below 70 %', 1.39, 1.39, []],
    ['at 70 %', 1.41, 1.41, ['STORE_NEARLY_FULL ALARM_SEVERITY_WARNING cluster']],
    ['at 85 %', 1.71, 1.71, ['STORE_NEARLY_FULL ALARM_SEVERITY_CRITICAL cluster']],
    ['with a large file that is mostly free', 0.1, 1.85, []],
    ['with a file at its quota', 0.1, 1.97, ['STORE_NEARLY_FULL ALARM_SEVERITY_CRITICAL cluster']],
  ])('%s', (_what, inUse, file, wanted) => {
    rig.fill = { ...rig.fill, store: { inUseBytes: Math.round(inUse * GIB), fileBytes: Math.round(file * GIB) } };
    expect(alarms()).toEqual(wanted);
  });

  it('is said with its numbers', () => {
    rig.fill = { ...rig.fill, store: { inUseBytes: 1.5 * GIB, fileBytes: Math.round(1.6 * GIB) } };
    expect(rig.api.alarms.all()[0]).toMatchObject({
      message:
        'the cluster store uses 1.50 GiB of its quota of 2.00 GiB (its file has 1.60 GiB): only what keeps the plant running is written',
    });
  });
});

describe("the spool's disk", () => {
  const spool = (free: number) => ({
    dir: '/spool',
    totalBytes: 100n * BigInt(GIB),
    freeBytes: BigInt(Math.round(free * GIB)),
    reserveBytes: 4n * BigInt(GIB),
  });

  it('is an alarm of that host when its reserve is touched', () => {
    rig.fill = { ...rig.fill, spool: spool(4) };
    expect(alarms()).toEqual([]);
    rig.fill = { ...rig.fill, spool: spool(3.9) };
    expect(alarms()).toEqual(['SPOOL_LOW ALARM_SEVERITY_WARNING host/host1']);
    expect(rig.api.alarms.all()[0]?.message).toMatch(/^3.90 GiB of 100.00 GiB are free on the disk of \/spool/);
  });
});
