// SPDX-License-Identifier: Apache-2.0
import 'reflect-metadata'; // before @peculiar/x509, see authority.ts
import * as x509 from '@peculiar/x509';

/** The serial numbers in a list, in their order. */
export function serialsOf(list: Uint8Array): readonly string[] {
  return new x509.X509Crl(Buffer.from(list)).entries.map(({ serialNumber }) => serialNumber);
}
