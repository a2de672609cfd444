// SPDX-License-Identifier: Apache-2.0
/** libvirtd's certificates are renewed by the agent, and libvirtd is told. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { VirtualClock } from '@busbar/core/clock/virtual';
import { silentLogger } from '@busbar/core/log';
import { type TestAuthority, testAuthority, tlsFiles } from '@busbar/pki/tls/authority.fixture';
import { POLL_MS } from '@busbar/pki/tls/source';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { keepLibvirtCertificates } from './certificates.ts';

const DAY_MS = 86_400_000;
let authority: TestAuthority;
let pki: string;
let clock: VirtualClock;
let remove: Disposable;
let reloads: number;
let warnings: string[];
let stop: AbortController;

const order = (days: number) => ({
  uris: [],
  notBefore: new Date(clock.wallTime().getTime() - 1_000),
  notAfter: new Date(clock.wallTime().getTime() + days * DAY_MS),
});
async function replace(name: string, days = 90): Promise<void> {
  const pair = await authority.issue(order(days));
  writeFileSync(join(pki, `${name}key.pem`), pair.keyPem, { mode: 0o600 });
  writeFileSync(join(pki, `${name}cert.pem`), pair.certificatePem);
}
const certificate = (name: string) => readFileSync(join(pki, `${name}cert.pem`), 'utf8');

beforeEach(async () => {
  clock = new VirtualClock();
  authority = await testAuthority();
  const files = tlsFiles(authority, await authority.issue(order(90)));
  remove = files;
  pki = files.directory;
  renameSync(files.ca, join(pki, 'cacert.pem'));
  await replace('server');
  await replace('client');
  reloads = 0;
  warnings = [];
  stop = new AbortController();
});
afterEach(() => {
  stop.abort();
  remove[Symbol.dispose]();
});

const keep = (reload = async () => void reloads++) =>
  keepLibvirtCertificates(
    {
      pki,
      renewer: { renew: async (csr) => ({ certificatePem: await authority.certify(csr, order(90)) }) },
      clock,
      logger: {
        ...silentLogger,
        warn: (fields, message) => void warnings.push(`${message} ${JSON.stringify(fields)}`),
      },
      reload,
    },
    stop.signal,
  );

/** Files and keys take real time, virtual time stands still meanwhile. */
async function settled(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('it did not come to it');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
/** Lets the daemon read what is there. */
const begun = () => new Promise((resolve) => setTimeout(resolve, 100));

test('those that somebody replaced are read by libvirtd, without a restart', async () => {
  const kept = keep();
  await begun();
  await replace('server');
  await replace('client');
  await clock.advance(POLL_MS);
  await settled(() => reloads === 1);
  stop.abort();
  await kept;
  expect(warnings).toEqual([]);
});

test('those that come to two thirds of their life are renewed, both', async () => {
  const before = [certificate('server'), certificate('client')];
  const kept = keep();
  await begun();
  await clock.advance(59.9 * DAY_MS);
  expect([certificate('server'), certificate('client')]).toEqual(before);
  await clock.advance(0.1 * DAY_MS);
  await settled(() => certificate('server') !== before[0] && certificate('client') !== before[1] && reloads === 1);
  stop.abort();
  await kept;
});

test('a libvirtd that does not take them, or files that are not there, are told and no more', async () => {
  const kept = keep(() => Promise.reject(new Error('no such server')));
  await begun();
  await replace('server');
  await clock.advance(POLL_MS);
  await settled(() => warnings.length === 1);
  expect(warnings[0]).toMatch(/^libvirtd does not take libvirt's certificates .*no such server/);
  stop.abort();
  await kept;
  renameSync(join(pki, 'clientcert.pem'), join(pki, 'away.pem'));
  stop = new AbortController();
  const again = keep();
  await settled(() => warnings.length === 2);
  expect(warnings[1]).toMatch(/^cannot look after libvirt's certificates .*clientcert\.pem/);
  stop.abort();
  await again;
});
