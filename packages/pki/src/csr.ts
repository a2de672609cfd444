// SPDX-License-Identifier: Apache-2.0
// Certificate requests (PKCS #10). Whoever wants a certificate makes its key where it will be used and sends only this.
// Of a request nothing counts but its public key and the proof that the sender holds the private one: names, role and
// lifetime are decided by who issues.
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import 'reflect-metadata'; // before @peculiar/x509, see authority.ts
import * as x509 from '@peculiar/x509';
import { ALGORITHM, exportKey, PkiError, subject } from './authority.ts';

/** One of P-256 with a name is 400 bytes; with every extension that openssl likes to add it stays below 2 KiB. */
export const CSR_MAX_CHARACTERS = 4_096;
/** What every TLS stack of the cluster takes: etcd's Go, GnuTLS in libvirt, OpenSSL in Node. */
const CURVES: readonly string[] = ['P-256', 'P-384'];
const ARMOUR = /^\s*-----BEGIN CERTIFICATE REQUEST-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE REQUEST-----\s*$/;

export interface NewRequest {
  readonly csrPem: string;
  /** PKCS #8. Whoever writes it to a file uses mode 0600. */
  readonly keyPem: string;
}

/** Makes a key and the request for its certificate. */
export async function createRequest(commonName: string): Promise<NewRequest> {
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: subject(commonName),
    keys,
    signingAlgorithm: ALGORITHM,
  });
  return { csrPem: `${request.toString('pem')}\n`, keyPem: await exportKey(keys.privateKey) };
}

/** The public key of a request. Throws PkiError, which says what is wrong, for whatever else is sent. */
export async function readRequest(csrPem: string): Promise<x509.PublicKey> {
  if (csrPem.length > CSR_MAX_CHARACTERS)
    throw new PkiError(`it has ${csrPem.length} characters, more than ${CSR_MAX_CHARACTERS}`);
  if (!ARMOUR.test(csrPem)) throw new PkiError('it is not one PEM block "CERTIFICATE REQUEST"');
  let request: x509.Pkcs10CertificateRequest;
  let curve: string | undefined;
  try {
    request = new x509.Pkcs10CertificateRequest(csrPem);
    // Parses the key, too: an algorithm that is unknown throws.
    curve = (request.publicKey.algorithm as { namedCurve?: string }).namedCurve;
  } catch (cause) {
    throw new PkiError('it is no certificate request that can be read', { cause });
  }
  if (request.publicKey.algorithm.name !== 'ECDSA' && request.publicKey.algorithm.name !== 'ECDH')
    throw new PkiError(
      `its key is ${request.publicKey.algorithm.name || 'of an unknown kind'}, not of an elliptic curve`,
    );
  if (curve === undefined || !CURVES.includes(curve))
    throw new PkiError(`its key is on curve ${curve ?? 'unknown'}, not on ${CURVES.join(' or ')}`);
  const proven = await request.verify().catch((cause: unknown) => {
    throw new PkiError('its signature cannot be checked', { cause });
  });
  if (!proven) throw new PkiError('its signature is not by the key in it');
  return request.publicKey;
}

/** What stands for a public key: SHA-256 of its SubjectPublicKeyInfo, base64url (as in RFC 7469, but for URLs). */
export function spkiPin(certificatePem: string | Buffer): string {
  const der = new X509Certificate(certificatePem).publicKey.export({ type: 'spki', format: 'der' });
  return createHash('sha256').update(der).digest('base64url');
}

/** Whether certificate and key belong together. */
export function matches(certificatePem: string, keyPem: string): boolean {
  return new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(keyPem));
}
