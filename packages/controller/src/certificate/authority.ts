// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { type Authority, openAuthority, PkiError } from '@busbar/pki/authority';
import { readRequest } from '@busbar/pki/csr';
import {
  type AuthorityName,
  type Holder,
  type IssuedCertificate,
  issueFor,
  PURPOSE,
  type Purpose,
} from '@busbar/pki/purpose';
import type { Seal } from '@busbar/pki/seal';
import { authorityContext } from '@busbar/pki/sealed-authorities';
import type { AuthorityRecord } from '@busbar/proto/gen/busbar/store/v1/pki';
import type { Api } from '../api/call.ts';

/** The certificate of an authority, PEM. */
export function authorityPem(api: Api, name: AuthorityName): string {
  return recordOf(api, name).certificatePem;
}

/** Issues a certificate for the key of a request. Nothing is recorded yet: whoever hands it out records it first. */
export async function sign(
  api: Api,
  order: { readonly purpose: Purpose; readonly holder: Holder; readonly validDays: number },
  csr: { readonly field: string; readonly pem: string },
): Promise<IssuedCertificate> {
  const publicKey = await readRequest(csr.pem).catch((cause: unknown) => {
    if (!(cause instanceof PkiError)) throw cause;
    const expected = 'a PEM "CERTIFICATE REQUEST" with a key on P-256 or P-384, signed by it';
    throw new BusbarError({
      kind: 'invalid',
      reason: 'CSR_INVALID',
      message: `${csr.field} cannot be used: ${cause.message}`,
      hint: `expected ${expected}; "busbar certificate issue" makes one`,
      fields: [{ field: csr.field, problem: cause.message, expected }],
      cause,
    });
  });
  const authority = await open(api, PURPOSE[order.purpose].authority);
  return await issueFor(authority, { cluster: api.clusterName, ...order, publicKey, now: api.clock.wallTime() });
}

/** Opened for each certificate: they are few, and the key is in memory no longer than it is used. */
function open(api: Api, name: AuthorityName): Promise<Authority> {
  return openRecorded(api.seal, name, recordOf(api, name));
}

export async function openRecorded(
  seal: Seal,
  name: AuthorityName,
  record: Pick<AuthorityRecord, 'certificatePem' | 'sealedKey'>,
): Promise<Authority> {
  const keyPem = Buffer.from(seal.open(record.sealedKey, authorityContext(name))).toString();
  return await openAuthority({ certificatePem: record.certificatePem, keyPem });
}

function recordOf(api: Api, name: AuthorityName) {
  const entry = api.view.tables.authority.get(name);
  if (entry !== undefined) return entry.record;
  throw new BusbarError({
    kind: 'precondition',
    reason: 'AUTHORITY_MISSING',
    message: `the cluster store has no authority "${name}", so no certificate can be issued`,
    hint: 'give the controller the file that "busbar cluster init" wrote (authoritiesFile in controller.yaml) and restart it',
  });
}
