// SPDX-License-Identifier: Apache-2.0
/** What a daemon does when the files of its certificate change under it. */
import { chmodSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { Logger } from '@busbar/core/log';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Pair, type TestAuthority, testAuthority, tlsFiles } from './authority.fixture.ts';
import { readTls, SWITCH_ORDER, stagePair, switchPair } from './files.ts';
import { parseTls } from './material.ts';
import { openTlsSource, POLL_MS, type TlsSource } from './source.ts';

const clock = new VirtualClock();
const now = clock.wallTime().getTime();
const order = {
  uris: ['spiffe://lab/host/host1'],
  notBefore: new Date(now - 60_000),
  notAfter: new Date(now + 3_600_000),
};

let authority: TestAuthority;
let first: Pair;
let second: Pair;
let files: ReturnType<typeof tlsFiles>;
let lines: { level: string; fields: Record<string, unknown>; message: string }[] = [];
const log = (level: string) => (fields: object, message: string) =>
  void lines.push({ level, fields: fields as Record<string, unknown>, message });
const logger: Logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };

beforeEach(async () => {
  authority = await testAuthority();
  first = await authority.issue(order);
  second = await authority.issue(order);
  files = tlsFiles(authority, first);
  lines = [];
});
afterEach(() => files[Symbol.dispose]());

/** Files are read in real time, in which virtual time stands still. */
async function settled(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('it did not come to it');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const open = () => openTlsSource({ files, clock, logger });
const uses = (source: TlsSource, pair: Pair) => source.current().certificate.toString() === pair.certificatePem;
const text = (pair: Pair, ca = authority.certificatePem) => ({
  ca: Buffer.from(ca),
  certificate: Buffer.from(pair.certificatePem),
  key: Buffer.from(pair.keyPem),
});

describe('what belongs together', () => {
  test('is taken, also with a chain and with several authorities', async () => {
    const other = await testAuthority('another');
    const bundle = `${other.certificatePem}some words\n${authority.certificatePem}`;
    expect(parseTls(text(first, bundle))).toMatchObject({
      ok: true,
      value: {
        names: 'DNS:localhost, URI:spiffe://lab/host/host1',
        notAfter: new Date(Math.floor(now / 1e3) * 1e3 + 3_600_000),
      },
    });
    const chained = { ...first, certificatePem: first.certificatePem + other.certificatePem };
    expect(parseTls(text(chained)).ok).toBe(true);
  });

  test('is told apart from what does not', async () => {
    const other = await testAuthority('another');
    const refusal = (pair: Pair, ca?: string) => {
      const result = parseTls(text(pair, ca));
      return result.ok ? 'taken' : result.error;
    };
    expect(refusal({ ...first, keyPem: second.keyPem })).toBe(
      'the key is not the one that the certificate was made for',
    );
    expect(refusal({ ...first, keyPem: 'x' })).toBe('the key: not a private key in PEM without a passphrase');
    expect(refusal({ ...first, certificatePem: '' })).toBe('the certificate: no PEM block "CERTIFICATE"');
    expect(refusal(first, 'x')).toBe('the authorities: no PEM block "CERTIFICATE"');
    expect(refusal(first, other.certificatePem)).toBe(
      'the certificate was issued by "CN=test authority", which is not among the authorities',
    );
    // The same name, another key: an authority that was made anew.
    const namesake = await testAuthority();
    expect(refusal(first, namesake.certificatePem)).toContain('not among the authorities');
    const cut = first.certificatePem.replace(/\n.{20}/, '\n');
    expect(refusal({ ...first, certificatePem: cut })).toContain('the certificate: not a certificate');
  });

  test('whatever the bytes are, the answer is a pair or a reason, and no piece of the key', () => {
    const piece = (pem: string) =>
      fc.oneof(
        fc.constant(pem),
        fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
        fc.tuple(fc.nat(pem.length), fc.nat(40)).map(([at, length]) => pem.slice(0, at) + pem.slice(at + length)),
      );
    const secret = first.keyPem.split('\n')[1] as string;
    fc.assert(
      fc.property(
        piece(authority.certificatePem),
        piece(first.certificatePem),
        piece(first.keyPem),
        (ca, cert, key) => {
          const result = parseTls({ ca: Buffer.from(ca), certificate: Buffer.from(cert), key: Buffer.from(key) });
          if (!result.ok) expect(result.error).not.toContain(secret);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('a replaced certificate', () => {
  test('is used once both files are there; whoever replaces them one by one causes no warning', async () => {
    const source = await open();
    let changes = 0;
    using _ = source.onChange(() => changes++);
    writeFileSync(files.certificate, second.certificatePem);
    await source.refresh();
    expect(uses(source, first)).toBe(true);
    writeFileSync(files.key, second.keyPem);
    await source.refresh();
    expect(uses(source, second)).toBe(true);
    expect(changes).toBe(1);
    expect(lines.map(({ level, message }) => [level, message])).toEqual([['info', 'a new certificate is in use']]);
    await source.refresh();
    expect(changes).toBe(1);
  });

  test.each<[string, () => void, RegExp]>([
    ['has the key of another', () => writeFileSync(files.key, second.keyPem), /own\.key: the key is not the one/],
    ['is gone', () => renameSync(files.certificate, `${files.certificate}.old`), /ENOENT.*own\.crt/],
    ['is no certificate', () => writeFileSync(files.certificate, 'x'), /no PEM block/],
    ['has lost its authority', () => writeFileSync(files.ca, ''), /the authorities: no PEM block/],
  ])('that %s is not used, and told once with the reason', async (_name, damage, reason) => {
    const source = await open();
    damage();
    for (let look = 0; look < 5; look++) await source.refresh();
    expect(uses(source, first)).toBe(true);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({ level: 'warn', fields: { err: expect.stringMatching(reason) } });
    expect(JSON.stringify(lines)).not.toContain('PRIVATE KEY');
    // And it is taken when it is repaired.
    writeFileSync(files.ca, authority.certificatePem);
    writeFileSync(files.certificate, second.certificatePem);
    writeFileSync(files.key, second.keyPem);
    await source.refresh();
    expect(uses(source, second)).toBe(true);
  });

  test('that has ended already is not used', async () => {
    const source = await open();
    const ended = await authority.issue({ ...order, notAfter: new Date(now - 1_000) });
    writeFileSync(files.certificate, ended.certificatePem);
    writeFileSync(files.key, ended.keyPem);
    for (let look = 0; look < 3; look++) await source.refresh();
    expect(uses(source, first)).toBe(true);
    expect(lines).toMatchObject([
      { level: 'warn', fields: { err: expect.stringContaining('the certificate ended at') } },
    ]);
  });

  test('is found by itself, at the next look', async () => {
    const source = await open();
    const stop = new AbortController();
    const running = source.run(stop.signal);
    writeFileSync(files.certificate, second.certificatePem);
    writeFileSync(files.key, second.keyPem);
    await clock.advance(POLL_MS);
    await settled(() => uses(source, second));
    stop.abort();
    await running;
  });

  test('a daemon does not begin with a pair that does not fit, and begins with one that has ended', async () => {
    writeFileSync(files.key, second.keyPem);
    await expect(open()).rejects.toMatchObject({ reason: 'TLS_FILES_UNUSABLE', message: /own\.key: the key is not/ });
    const ended = await authority.issue({ ...order, notAfter: new Date(now - 1_000) });
    writeFileSync(files.certificate, ended.certificatePem);
    writeFileSync(files.key, ended.keyPem);
    expect(uses(await open(), ended)).toBe(true);
    expect(lines).toMatchObject([{ level: 'error' }]);
  });
});

describe('replacing a pair', () => {
  test.each([0, 1, 2])('leaves a pair that fits when it dies after %i of its two renames', async (renames) => {
    const running = await open();
    await stagePair(files, second);
    for (const name of SWITCH_ORDER.slice(0, renames)) renameSync(`${files[name]}.next`, files[name]);
    const whole = renames === 0 ? first : second;
    expect(uses(await open(), whole)).toBe(true);
    await running.refresh();
    expect(uses(running, whole)).toBe(true);
    // The next one does not stumble over what was left.
    const third = await authority.issue(order);
    await stagePair(files, third);
    await switchPair(files);
    expect(uses(await open(), third)).toBe(true);
    expect(lines.filter((line) => line.level !== 'info')).toEqual([]);
  });

  test('keeps the modes, and no other user ever reads the key', async () => {
    chmodSync(files.certificate, 0o644);
    chmodSync(files.key, 0o600);
    await stagePair(files, second);
    expect(statSync(`${files.key}.next`).mode & 0o777).toBe(0o600);
    await switchPair(files);
    expect([files.certificate, files.key].map((path) => statSync(path).mode & 0o777)).toEqual([0o644, 0o600]);
    expect(readFileSync(files.key, 'utf8')).toBe(second.keyPem);
  });

  test('does not take a leftover that does not fit either', async () => {
    await stagePair(files, second);
    writeFileSync(files.key, (await authority.issue(order)).keyPem);
    expect(await readTls(files)).toMatchObject({ ok: false });
  });
});
