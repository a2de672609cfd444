// SPDX-License-Identifier: Apache-2.0
import { createHash, createPublicKey, X509Certificate } from 'node:crypto';
import 'reflect-metadata'; // before @peculiar/x509, see authority.ts
import * as x509 from '@peculiar/x509';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { certify, createAuthority, openAuthority, PkiError, pem } from './authority.ts';
import { createRequest, matches, readRequest, spkiPin } from './csr.ts';

const now = new Date();

async function requestWith(
  algorithm: Parameters<typeof crypto.subtle.generateKey>[0],
  signing: object = algorithm as object,
) {
  const keys = (await crypto.subtle.generateKey(algorithm as EcKeyGenParams, true, [
    'sign',
    'verify',
  ])) as CryptoKeyPair;
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: 'CN=x',
    keys: keys as never,
    signingAlgorithm: signing as never,
  });
  return request.toString('pem');
}
interface EcKeyGenParams {
  name: string;
  namedCurve: string;
}
interface CryptoKeyPair {
  publicKey: unknown;
  privateKey: unknown;
}

const der = (csrPem: string) => Buffer.from(csrPem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64');
const armoured = (bytes: Uint8Array) =>
  `-----BEGIN CERTIFICATE REQUEST-----\n${Buffer.from(bytes).toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;

describe('a certificate request', () => {
  it('gives its key to a certificate, and nothing else', async () => {
    const { csrPem, keyPem } = await createRequest('spiffe://lab/client/root, O=all');
    const authority = await openAuthority(await createAuthority({ commonName: 'ca', now, validDays: 2 }));
    const order = {
      commonName: 'anna',
      now,
      validDays: 1,
      uris: ['spiffe://lab/client/anna'],
      usages: ['clientAuth'],
    } as const;
    const certificatePem = pem(await certify(authority, order, await readRequest(csrPem)));
    expect(matches(certificatePem, keyPem)).toBe(true);
    expect(new X509Certificate(certificatePem).subject).toBe('CN=anna');
    expect(new X509Certificate(certificatePem).subjectAltName).toBe('URI:spiffe://lab/client/anna');
  });

  it('may be on P-384, with Windows line ends', async () => {
    const csr = await requestWith({ name: 'ECDSA', namedCurve: 'P-384' } as never, { name: 'ECDSA', hash: 'SHA-384' });
    await expect(readRequest(csr.replaceAll('\n', '\r\n'))).resolves.toBeDefined();
  });

  it.each([
    [
      'RSA',
      () =>
        requestWith({
          name: 'RSASSA-PKCS1-v1_5',
          hash: 'SHA-256',
          publicExponent: new Uint8Array([1, 0, 1]),
          modulusLength: 2048,
        } as never),
      'RSASSA-PKCS1-v1_5',
    ],
    [
      'P-521',
      () => requestWith({ name: 'ECDSA', namedCurve: 'P-521' } as never, { name: 'ECDSA', hash: 'SHA-512' }),
      'on curve P-521',
    ],
    ['Ed25519', () => requestWith({ name: 'Ed25519' } as never), 'not of an elliptic curve'],
  ])('with a key of kind %s is refused', async (_name, make, why) => {
    await expect(readRequest(await make())).rejects.toThrow(why);
  });

  it.each([
    ['', 'not one PEM block'],
    ['hello', 'not one PEM block'],
    ['-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n', 'not one PEM block'],
    ['-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n', 'can be read'],
    ['x'.repeat(5_000), '5000 characters'],
  ])('%j is refused', async (text, why) => {
    await expect(readRequest(text)).rejects.toThrow(why);
    await expect(readRequest(text)).rejects.toThrow(PkiError);
  });

  it('is not a certificate, not two, and not a key', async () => {
    const { csrPem, keyPem } = await createRequest('x');
    const { certificatePem } = await createAuthority({ commonName: 'ca', now, validDays: 1 });
    for (const text of [certificatePem, keyPem, csrPem + csrPem, csrPem + keyPem, `# mine\n${csrPem}`])
      await expect(readRequest(text)).rejects.toThrow('not one PEM block');
  });

  it('proves that its sender holds the key: every changed bit is noticed', async () => {
    const good = der((await createRequest('anna')).csrPem);
    await expect(readRequest(armoured(good))).resolves.toBeDefined();
    await fc.assert(
      fc.asyncProperty(fc.nat(good.length - 1), fc.nat(7), async (at, bit) => {
        const bad = Buffer.from(good);
        bad[at] = (bad[at] ?? 0) ^ (1 << bit);
        // Some bits of DER say the same in another way; then the key must still be the one that signed.
        const key = await readRequest(armoured(bad)).catch((error: unknown) => {
          expect(error).toBeInstanceOf(PkiError);
          return null;
        });
        if (key !== null)
          expect(Buffer.from(key.rawData).equals(Buffer.from((await readRequest(armoured(good))).rawData))).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  it('that is anything at all ends in PkiError', async () => {
    const base64 = fc.uint8Array({ maxLength: 400 }).map(armoured);
    const good = der((await createRequest('x')).csrPem);
    const cut = fc.nat(good.length).map((length) => armoured(good.subarray(0, length)));
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          base64,
          cut.filter((text) => text !== armoured(good)),
        ),
        async (text) => {
          await expect(readRequest(text)).rejects.toThrow(PkiError);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('a pin', () => {
  it('is the digest of the public key, however often it is certified', async () => {
    const pair = await createAuthority({ commonName: 'ca', now, validDays: 1 });
    const spki = createPublicKey(pair.certificatePem).export({ type: 'spki', format: 'der' });
    expect(spkiPin(pair.certificatePem)).toBe(createHash('sha256').update(spki).digest('base64url'));
    expect(spkiPin((await createAuthority({ commonName: 'ca', now, validDays: 1 })).certificatePem)).not.toBe(
      spkiPin(pair.certificatePem),
    );
  });
});
