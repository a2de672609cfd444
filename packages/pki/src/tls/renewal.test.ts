// SPDX-License-Identifier: Apache-2.0
/** When a certificate is renewed, and what happens to a renewal that goes wrong. */
import { systemClock } from '@busbar/core/clock/clock';
import { VirtualClock } from '@busbar/core/clock/virtual';
import { type Logger, silentLogger } from '@busbar/core/log';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Order, type TestAuthority, testAuthority, tlsFiles } from './authority.fixture.ts';
import { keepRenewed, renewalDueMs, renewOnce } from './renewal.ts';
import { openTlsSource, type TlsSource } from './source.ts';

const DAY_MS = 86_400_000;
const uris = ['spiffe://lab/host/host1'];

describe('the moment', () => {
  test('is at two thirds of the lifetime', () => {
    const material = { notBefore: new Date(0), notAfter: new Date(90_000) };
    expect(renewalDueMs(material, null)).toBe(60_000);
    // Dated back by an hour, it lives from when it was got.
    expect(renewalDueMs({ notBefore: new Date(-3_600_000), notAfter: new Date(90_000) }, 0)).toBe(60_000);
  });

  test('of one just got is never at once, and always before its end', () => {
    fc.assert(
      fc.property(fc.nat(1e9), fc.nat(1e9), fc.integer({ min: 1, max: 1e9 }), (backMs, gotMs, lifeMs) => {
        const material = { notBefore: new Date(gotMs - backMs), notAfter: new Date(gotMs + lifeMs) };
        const dueMs = renewalDueMs(material, gotMs);
        expect(dueMs).toBeGreaterThan(gotMs);
        expect(dueMs).toBeLessThan(material.notAfter.getTime());
      }),
    );
  });
});

describe('renewal', () => {
  const setUp = () => {
    const clock = new VirtualClock();
    const beginMs = clock.wallTime().getTime();
    const days = () => (clock.wallTime().getTime() - beginMs) / DAY_MS;
    const lasting = (serialNumber: string, lifeDays: number, backdatedMs = 0) => ({
      serialNumber,
      notBefore: new Date(clock.wallTime().getTime() - backdatedMs),
      notAfter: new Date(clock.wallTime().getTime() + lifeDays * DAY_MS),
    });
    const world = {
      clock,
      days,
      lasting,
      certificate: lasting('1', 90),
      told: [] as string[],
      stop: new AbortController(),
    };
    const logger: Logger = {
      ...silentLogger,
      warn: (fields, message) => void world.told.push(`${message} ${JSON.stringify(fields)}`),
    };
    const keep = (renew: (signal: AbortSignal) => Promise<void>) =>
      keepRenewed({ current: () => world.certificate, renew, clock, logger }, world.stop.signal);
    return { ...world, world, keep };
  };

  test('happens once at its time, and again when the new one has come to that age', async () => {
    const { world, keep, clock, days, lasting, stop } = setUp();
    const atDays: number[] = [];
    const kept = keep(async () => {
      atDays.push(days());
      // Dated back, and so short that by its own dates alone it would always be due.
      world.certificate = lasting(String(atDays.length + 1), 0.03, 3_600_000);
    });
    await clock.advance(59.9 * DAY_MS);
    expect(atDays).toEqual([]);
    await clock.advance(0.15 * DAY_MS);
    expect(atDays.map((day) => day.toFixed(2))).toEqual(['60.00', '60.02', '60.04']);
    stop.abort();
    await kept;
  });

  test('that fails is tried again until it succeeds, at most once in an hour and often at the end', async () => {
    const { world, keep, clock, days, lasting, told, stop } = setUp();
    const atDays: number[] = [];
    void keep(async () => {
      atDays.push(days());
      if (days() < 89.999) throw new Error('no controller');
      world.certificate = lasting('2', 90);
    });
    await clock.advance(91 * DAY_MS);
    expect(told[0]).toMatch(/could not be renewed; next try in 3600 s .*no controller/);
    expect(told).toHaveLength(atDays.length - 1);
    const pausesMs = atDays.slice(1).map((day, index) => (day - (atDays[index] ?? 0)) * DAY_MS);
    expect(Math.max(...pausesMs)).toBeCloseTo(3_600_000, -1);
    expect(pausesMs.at(-1)).toBeLessThan(60_000 * 10);
    expect(world.certificate.serialNumber).toBe('2');
    stop.abort();
  });

  test('that gets no answer is given up, and its signal aborts', async () => {
    const { keep, clock, told, stop } = setUp();
    const signals: AbortSignal[] = [];
    void keep((signal) => {
      signals.push(signal);
      return new Promise(() => {});
    });
    await clock.advance(60 * DAY_MS + 40_000);
    expect(told).toEqual([expect.stringContaining('did not finish within 30000 ms')]);
    expect(signals[0]?.aborted).toBe(true);
    stop.abort();
  });

  test('is not due when somebody else has replaced the certificate', async () => {
    const { world, keep, clock, lasting, stop } = setUp();
    let asked = 0;
    void keep(async () => void asked++);
    await clock.advance(59 * DAY_MS);
    world.certificate = lasting('by hand', 90);
    await clock.advance(59 * DAY_MS);
    expect(asked).toBe(0);
    stop.abort();
  });

  test('ends with the daemon, also in the middle of one', async () => {
    const { keep, clock, told, stop } = setUp();
    const kept = keep(() => new Promise(() => {}));
    await clock.advance(60 * DAY_MS + 1_000);
    stop.abort();
    await kept;
    expect(told).toEqual([]);
  });
});

describe('an answer', () => {
  let authority: TestAuthority;
  let files: ReturnType<typeof tlsFiles>;
  let source: TlsSource;
  const valid = (days: number): Order => ({
    uris,
    notBefore: new Date(),
    notAfter: new Date(Math.ceil(Date.now() / 60_000) * 60_000 + days * DAY_MS),
  });
  beforeEach(async () => {
    authority = await testAuthority();
    files = tlsFiles(authority, await authority.issue(valid(90)));
    source = await openTlsSource({ files, clock: systemClock, logger: silentLogger });
  });
  afterEach(() => files[Symbol.dispose]());

  const answer = (certify: (csr: string) => Promise<string>) =>
    renewOnce(
      {
        source,
        files,
        renewer: { renew: async (csr) => ({ certificatePem: await certify(csr) }) },
        logger: silentLogger,
      },
      AbortSignal.timeout(10_000),
    );

  test.each<[string, (csr: string) => Promise<string>, RegExp]>([
    ['for another key', async () => (await authority.issue(valid(180))).certificatePem, /the key is not the one/],
    [
      'by another authority',
      async (csr) => (await testAuthority('stranger')).certify(csr, valid(180)),
      /issued by "CN=stranger", which is not among/,
    ],
    [
      'for somebody else',
      (csr) => authority.certify(csr, { ...valid(180), uris: ['spiffe://lab/controller/host1'] }),
      /it is for .*controller\/host1, not for .*host\/host1/,
    ],
    [
      'with an identity too many',
      (csr) => authority.certify(csr, { ...valid(180), uris: [...uris, 'spiffe://lab/controller/host1'] }),
      /it is for /,
    ],
    ['that ends no later', (csr) => authority.certify(csr, valid(90)), /no later than the present one/],
    ['that is none', () => Promise.resolve('oops'), /no PEM block/],
  ])('%s is not used', async (_name, certify, reason) => {
    const before = source.current();
    await expect(answer(certify)).rejects.toMatchObject({
      reason: 'CERTIFICATE_NOT_AS_ASKED',
      message: expect.stringMatching(reason),
    });
    await source.refresh();
    expect(source.current()).toBe(before);
  });

  test('with a new key, and one more address, is used', async () => {
    const former = source.current().serialNumber;
    const key = source.current().key.toString();
    await answer((csr) => authority.certify(csr, { ...valid(180), ips: ['10.0.0.1'] }));
    expect(source.current().serialNumber).not.toBe(former);
    expect(source.current().names).toContain('IP Address:10.0.0.1');
    expect(source.current().key.toString()).not.toBe(key);
  });
});
