// SPDX-License-Identifier: Apache-2.0
// Issuing of X.509 certificates (EC P-256): a certificate authority and end certificates. No files, no clock: the
// caller says what time it is and keeps what it gets. Randomness is WebCrypto's.
import type { webcrypto } from 'node:crypto';
import 'reflect-metadata'; // @peculiar/x509 resolves its parsers through it and fails on import order, so it comes first
import * as x509 from '@peculiar/x509';

export const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAY_MS = 86_400_000;
/** Hosts of a cluster may boot with a clock that is behind by this much and still accept a fresh certificate. */
export const CLOCK_SKEW_MS = 3_600_000;

export interface KeyPairPem {
  readonly certificatePem: string;
  /** PKCS #8. Whoever writes it to a file uses mode 0600. */
  readonly keyPem: string;
}

export interface Authority {
  readonly certificatePem: string;
  readonly certificate: x509.X509Certificate;
  readonly key: webcrypto.CryptoKey;
}

export interface AuthorityRequest {
  readonly commonName: string;
  readonly now: Date;
  readonly validDays: number;
}

export type Usage = 'serverAuth' | 'clientAuth';

export interface CertificateRequest {
  readonly commonName: string;
  readonly now: Date;
  readonly validDays: number;
  readonly dns?: readonly string[];
  readonly ips?: readonly string[];
  readonly uris?: readonly string[];
  readonly usages: readonly Usage[];
}

export class PkiError extends Error {
  override readonly name = 'PkiError';
}

/** Makes a self-signed authority that can sign end certificates but no further authorities. */
export async function createAuthority(request: AuthorityRequest): Promise<KeyPairPem> {
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomSerial(),
    name: subject(request.commonName),
    ...validity(request),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificatePem: pem(certificate), keyPem: await exportKey(keys.privateKey) };
}

/** Takes an authority that was stored as PEM back into use. */
export async function openAuthority(stored: KeyPairPem): Promise<Authority> {
  const certificate = new x509.X509Certificate(stored.certificatePem);
  if (certificate.getExtension(x509.BasicConstraintsExtension)?.ca !== true) {
    throw new PkiError(`the certificate of "${certificate.subject}" is not an authority's`);
  }
  const key = await crypto.subtle.importKey('pkcs8', x509.PemConverter.decodeFirst(stored.keyPem), ALGORITHM, false, [
    'sign',
  ]);
  return { certificatePem: stored.certificatePem, certificate, key };
}

/** Issues a certificate with a new key of its own. */
export async function issue(authority: Authority, request: CertificateRequest): Promise<KeyPairPem> {
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const certificate = await certify(authority, request, keys.publicKey);
  return { certificatePem: pem(certificate), keyPem: await exportKey(keys.privateKey) };
}

/** Issues a certificate for a key that somebody else holds. Everything in it comes from `request`, nothing from the holder. */
export async function certify(
  authority: Authority,
  request: CertificateRequest,
  publicKey: webcrypto.CryptoKey | x509.PublicKey,
): Promise<x509.X509Certificate> {
  const names: x509.JsonGeneralNames = [
    ...(request.dns ?? []).map((value) => ({ type: 'dns' as const, value })),
    ...(request.ips ?? []).map((value) => ({ type: 'ip' as const, value })),
    ...(request.uris ?? []).map((value) => ({ type: 'url' as const, value })),
  ];
  if (names.length === 0)
    throw new PkiError(`a certificate for "${request.commonName}" needs at least one subject alternative name`);
  if (request.usages.length === 0) throw new PkiError(`a certificate for "${request.commonName}" needs a usage`);
  const span = validity(request);
  if (span.notAfter > authority.certificate.notAfter) {
    // Verifiers would refuse the chain on the day the authority ends; better to be told on the day of issue.
    throw new PkiError(
      `a certificate until ${span.notAfter.toISOString()} would outlive its authority, which ends ${authority.certificate.notAfter.toISOString()}`,
    );
  }
  return await x509.X509CertificateGenerator.create({
    serialNumber: randomSerial(),
    subject: subject(request.commonName),
    issuer: authority.certificate.subjectName,
    ...span,
    signingAlgorithm: ALGORITHM,
    publicKey,
    signingKey: authority.key,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(request.usages.map((usage) => x509.ExtendedKeyUsage[usage])),
      new x509.SubjectAlternativeNameExtension(names),
      await x509.AuthorityKeyIdentifierExtension.create(authority.certificate.publicKey),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ],
  });
}

function validity(request: { readonly now: Date; readonly validDays: number }): { notBefore: Date; notAfter: Date } {
  if (!(request.validDays > 0)) throw new PkiError(`validDays must be positive, not ${request.validDays}`);
  return {
    notBefore: new Date(request.now.getTime() - CLOCK_SKEW_MS),
    notAfter: new Date(request.now.getTime() + request.validDays * DAY_MS),
  };
}

/** As structured data, not as a "CN=…" string: a comma in a name must not become a second attribute. */
export function subject(commonName: string): x509.JsonName {
  return [{ CN: [commonName] }];
}

/** 16 random bytes; the top bit is cleared because a serial number is a positive INTEGER, the next one set so that it has no leading zero. */
function randomSerial(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return Buffer.from(bytes).toString('hex');
}

export function pem(certificate: x509.X509Certificate): string {
  return `${certificate.toString('pem')}\n`;
}

export async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await crypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}
