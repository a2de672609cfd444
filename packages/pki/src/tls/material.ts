// SPDX-License-Identifier: Apache-2.0
// What a daemon speaks TLS with: its certificate (with the chain, leaf first), the key of it, and the authorities whose
// certificates it believes. Pure.
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { errorChain } from '@busbar/core/errors';
import { ok, type Result, refuse } from '@busbar/core/result';

/** PEM, as read from files. */
export interface TlsText {
  readonly ca: Buffer;
  readonly certificate: Buffer;
  readonly key: Buffer;
}

export interface TlsMaterial extends TlsText {
  /** Hexadecimal, upper case. */
  readonly serialNumber: string;
  /** Subject alternative names, in Node's text form: who it is. */
  readonly names: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;

/**
 * Takes the three apart and makes sure that they belong together, because a TLS library finds out at the first handshake
 * only, when the ones that worked are gone. The refusal says what is wrong and holds nothing of the key.
 */
export function parseTls(text: TlsText): Result<TlsMaterial, string> {
  const authorities = certificatesIn(text.ca);
  if (!authorities.ok) return refuse(`the authorities: ${authorities.error}`);
  const chain = certificatesIn(text.certificate);
  if (!chain.ok) return refuse(`the certificate: ${chain.error}`);
  const [leaf, ...intermediates] = chain.value;
  if (leaf === undefined) return refuse('the certificate: no PEM block "CERTIFICATE"');
  try {
    if (!leaf.checkPrivateKey(createPrivateKey(text.key)))
      return refuse('the key is not the one that the certificate was made for');
  } catch {
    // OpenSSL's reason would be "DECODER routines::unsupported", whatever the reason is.
    return refuse('the key: not a private key in PEM without a passphrase');
  }
  const issuer = [...intermediates, ...authorities.value].find((candidate) => leaf.checkIssued(candidate));
  if (issuer === undefined || !leaf.verify(issuer.publicKey))
    return refuse(`the certificate was issued by "${oneLine(leaf.issuer)}", which is not among the authorities`);
  return ok({
    ...text,
    serialNumber: leaf.serialNumber,
    names: leaf.subjectAltName ?? '',
    notBefore: leaf.validFromDate,
    notAfter: leaf.validToDate,
  });
}

function certificatesIn(pem: Buffer): Result<readonly X509Certificate[], string> {
  const blocks = pem.toString('latin1').match(CERTIFICATE) ?? [];
  if (blocks.length === 0) return refuse('no PEM block "CERTIFICATE"');
  try {
    return ok(blocks.map((block) => new X509Certificate(block)));
  } catch (error) {
    return refuse(`not a certificate: ${errorChain(error)}`);
  }
}

function oneLine(distinguishedName: string): string {
  return distinguishedName.replaceAll('\n', ', ');
}

export function sameTls(a: TlsText, b: TlsText): boolean {
  return a.ca.equals(b.ca) && a.certificate.equals(b.certificate) && a.key.equals(b.key);
}
