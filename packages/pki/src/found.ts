// SPDX-License-Identifier: Apache-2.0
// The beginning of a cluster: its authorities, the seal key, and the first certificates. Everything is made in memory
// and handed out; whoever calls (`busbar cluster init`, the lab) writes files. The private keys of the authorities leave
// here only sealed.
import { randomBytes } from 'node:crypto';
import { ALGORITHM, type Authority, createAuthority, exportKey, type KeyPairPem, openAuthority } from './authority.ts';
import { IdentityError, isIdentityName } from './identity.ts';
import {
  AUTHORITIES,
  type AuthorityName,
  type Holder,
  type HostPurpose,
  type IssuedCertificate,
  issueFor,
  PURPOSE,
  type Purpose,
  purposesOf,
} from './purpose.ts';
import { revocationList } from './revocation-list.ts';
import type { Role } from './role.ts';
import { SEAL_KEY_BYTES } from './seal.ts';
import { type SealedAuthorities, sealAuthorities } from './sealed-authorities.ts';

/** Longer than the machines live that it is made for: in a plant nobody renews an authority. */
const AUTHORITY_DAYS = 20 * 365;
/** Renewed when a third of it is left, so a host may be off for months. */
export const CERTIFICATE_DAYS = 365;

/** What a host has beside its keys; made here or sent to one that joins. */
export interface HostCredentials {
  readonly authorities: Readonly<Partial<Record<AuthorityName, string>>>;
  readonly certificates: Readonly<Partial<Record<HostPurpose, KeyPairPem>>>;
  /** Of a voter. */
  readonly sealKey: Uint8Array | null;
  /** Of a voter, for its etcd to begin with, DER; a host that joins gets it from its own controller. */
  readonly etcdRevocations: Uint8Array | null;
}

export interface FirstHost {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly voter: boolean;
}

export interface NewCluster {
  readonly name: string;
  /** Issues the certificates of one host, with new keys. */
  host(host: FirstHost): Promise<HostCredentials>;
  /** Issues a client certificate with a new key. */
  client(name: string, role: Role): Promise<KeyPairPem>;
  readonly authorities: Readonly<Record<AuthorityName, string>>;
  /** For the first controller to take over: sealed keys, and a record of every certificate issued so far. */
  sealed(): SealedAuthorities;
}

export async function foundCluster(request: { readonly name: string; readonly now: Date }): Promise<NewCluster> {
  const { name, now } = request;
  if (!isIdentityName(name))
    throw new IdentityError(`"${name}" cannot be a cluster's name: want a lower-case DNS label`);
  const sealKey = randomBytes(SEAL_KEY_BYTES);
  const pairs = new Map<AuthorityName, KeyPairPem>();
  const opened = new Map<AuthorityName, Authority>();
  for (const authority of AUTHORITIES) {
    const pair = await createAuthority({ commonName: `Busbar ${name} ${authority}`, now, validDays: AUTHORITY_DAYS });
    pairs.set(authority, pair);
    opened.set(authority, await openAuthority(pair));
  }
  const issued: IssuedCertificate[] = [];
  const issue = async (purpose: Purpose, holder: Holder): Promise<KeyPairPem> => {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
    const authority = opened.get(PURPOSE[purpose].authority) as Authority;
    const order = { cluster: name, purpose, holder, publicKey: keys.publicKey, now, validDays: CERTIFICATE_DAYS };
    const certificate = await issueFor(authority, order);
    issued.push(certificate);
    return { certificatePem: certificate.certificatePem, keyPem: await exportKey(keys.privateKey) };
  };
  const certificateOf = (authority: AuthorityName): string => pairs.get(authority)?.certificatePem as string;
  return {
    name,
    authorities: Object.fromEntries(AUTHORITIES.map((each) => [each, certificateOf(each)])) as Record<
      AuthorityName,
      string
    >,
    client: (client, role) => issue('client', { kind: 'client', name: client, role }),
    async host(host) {
      const purposes = purposesOf(host);
      const certificates: Partial<Record<HostPurpose, KeyPairPem>> = {};
      for (const purpose of purposes) {
        certificates[purpose] = await issue(purpose, { kind: 'host', name: host.name, addresses: host.addresses });
      }
      const needed = new Set(purposes.map((purpose) => PURPOSE[purpose].authority));
      const authorities = Object.fromEntries([...needed].map((each) => [each, certificateOf(each)]));
      const etcdRevocations = host.voter ? await revocationList(opened.get('etcd-ca') as Authority, [], now) : null;
      return { authorities, certificates, sealKey: host.voter ? sealKey : null, etcdRevocations };
    },
    sealed: () => sealAuthorities({ cluster: name, createTime: now, pairs, issued, sealKey }),
  };
}
