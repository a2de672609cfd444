// SPDX-License-Identifier: Apache-2.0
// An authority for tests whose certificates live for as long as a test can wait.
import { webcrypto } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import 'reflect-metadata'; // before @peculiar/x509, see ../authority.ts
import * as x509 from '@peculiar/x509';
import type { TlsFiles } from './files.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const newKeys = () => webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);

export interface Order {
  readonly uris: readonly string[];
  readonly ips?: readonly string[];
  readonly notBefore: Date;
  readonly notAfter: Date;
}

export interface Pair {
  readonly certificatePem: string;
  readonly keyPem: string;
}

export interface TestAuthority {
  readonly certificatePem: string;
  issue(order: Order): Promise<Pair>;
  /** For the key of a request, whatever else is in it. */
  certify(csrPem: string, order: Order): Promise<string>;
}

export async function testAuthority(commonName = 'test authority'): Promise<TestAuthority> {
  const keys = await newKeys();
  const name = [{ CN: [commonName] }];
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    name,
    notBefore: new Date(0),
    notAfter: new Date('2100-01-01'),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [new x509.BasicConstraintsExtension(true, 0, true)],
  });
  const sign = async (publicKey: x509.PublicKeyType, { uris, ips = [], notBefore, notAfter }: Order) => {
    const names = [
      { type: 'dns' as const, value: 'localhost' },
      ...ips.map((value) => ({ type: 'ip' as const, value })),
      ...uris.map((value) => ({ type: 'url' as const, value })),
    ];
    const certificate = await x509.X509CertificateGenerator.create({
      subject: [{ CN: ['test'] }],
      issuer: root.subjectName,
      notBefore,
      notAfter,
      signingAlgorithm: ALGORITHM,
      publicKey,
      signingKey: keys.privateKey,
      extensions: [new x509.SubjectAlternativeNameExtension(names)],
    });
    return `${certificate.toString('pem')}\n`;
  };
  return {
    certificatePem: `${root.toString('pem')}\n`,
    certify: (csrPem, order) => sign(new x509.Pkcs10CertificateRequest(csrPem).publicKey, order),
    async issue(order) {
      const own = await newKeys();
      const key = await webcrypto.subtle.exportKey('pkcs8', own.privateKey);
      return {
        certificatePem: await sign(own.publicKey, order),
        keyPem: `${x509.PemConverter.encode(key, 'PRIVATE KEY')}\n`,
      };
    },
  };
}

/** Files in a directory of their own, as a host has them. */
export function tlsFiles(authority: TestAuthority, pair: Pair): TlsFiles & { readonly directory: string } & Disposable {
  const directory = mkdtempSync(join(tmpdir(), 'busbar-tls-'));
  const at = (name: string) => join(directory, name);
  const files = { ca: at('ca.crt'), certificate: at('own.crt'), key: at('own.key') };
  writeFileSync(files.ca, authority.certificatePem);
  writeFileSync(files.certificate, pair.certificatePem);
  writeFileSync(files.key, pair.keyPem, { mode: 0o600 });
  return { ...files, directory, [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
}
