// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import 'reflect-metadata'; // before @peculiar/x509, see authority.ts
import * as x509 from '@peculiar/x509';
import { expect, it } from 'vitest';
import { createAuthority, openAuthority } from './authority.ts';
import { revocationList } from './revocation-list.ts';

const NOW = new Date('2030-01-01T00:00:00Z');
const SERIAL = '4f00000000000000000000000000abcd';

async function made(serials: readonly string[]) {
  const authority = await openAuthority(await createAuthority({ commonName: 'Busbar', now: NOW, validDays: 9 }));
  const revoked = serials.map((serial) => ({ serial, time: NOW }));
  return { authority, der: await revocationList(authority, revoked, NOW) };
}

it('names the revoked serial numbers, signed by the authority', async () => {
  const { authority, der } = await made([SERIAL, 'abc']);
  const list = new x509.X509Crl(der);
  expect(list.entries.map(({ serialNumber }) => serialNumber)).toEqual([SERIAL, '0abc']);
  expect(list.issuer).toBe(authority.certificate.subject);
  expect(await list.verify({ publicKey: authority.certificate })).toBe(true);
  const { authority: other } = await made([]);
  expect(await list.verify({ publicKey: other.certificate })).toBe(false);
});

it.each([[[]], [[SERIAL]]])('is what openssl takes for one, with %j in it', async (serials) => {
  const { der } = await made(serials);
  const text = execFileSync('openssl', ['crl', '-inform', 'DER', '-noout', '-text'], { input: der }).toString();
  expect(text).toContain('Issuer: CN = Busbar');
  expect(text).toContain('Last Update: Dec 31 23:00:00 2029 GMT');
  expect([...text.matchAll(/Serial Number: (\w+)/g)].map(([, serial]) => serial?.toLowerCase())).toEqual(serials);
});
