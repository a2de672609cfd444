// SPDX-License-Identifier: Apache-2.0
// Lists of revoked certificates (X.509 CRLs, RFC 5280 section 5), for servers that ask nobody but a file.
import 'reflect-metadata'; // before @peculiar/x509, see authority.ts
import * as x509 from '@peculiar/x509';
import { ALGORITHM, type Authority, CLOCK_SKEW_MS } from './authority.ts';

export interface RevokedCertificate {
  /** Lower-case hexadecimal. */
  readonly serial: string;
  readonly time: Date;
}

/**
 * How long a list counts for readers that look at its end; etcd does not. Long, because a list that has ended shuts everybody
 * out, while one that is old lets in only who was revoked since.
 */
const LIST_DAYS = 3_650;
const DAY_MS = 86_400_000;

/** A signed list in DER, the only form that every version of etcd reads. */
export async function revocationList(
  authority: Authority,
  revoked: readonly RevokedCertificate[],
  now: Date,
): Promise<Uint8Array> {
  const list = await x509.X509CrlGenerator.create({
    issuer: authority.certificate.subjectName,
    thisUpdate: new Date(now.getTime() - CLOCK_SKEW_MS),
    nextUpdate: new Date(now.getTime() + LIST_DAYS * DAY_MS),
    entries: revoked.map(({ serial, time }) => ({
      serialNumber: serial.padStart(serial.length + (serial.length % 2), '0'),
      revocationDate: time,
    })),
    signingAlgorithm: ALGORITHM,
    signingKey: authority.key,
  });
  return new Uint8Array(list.rawData);
}
