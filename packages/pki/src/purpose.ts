// SPDX-License-Identifier: Apache-2.0
// What certificates the cluster knows, as one table: which authority signs them, what they are good for, whom they name.
// The first certificates of a cluster, those of a joining host, those of the API and the renewed ones all come from here.
import { BusbarError } from '@busbar/core/errors';
import type * as x509 from '@peculiar/x509';
import { type Authority, certify, pem, type Usage } from './authority.ts';
import { type Identity, identityUri } from './identity.ts';
import { type Role, roleUri } from './role.ts';

/** Two, because etcd admits whoever it can verify (ADR 0009). There was a third, libvirt's: see ADR 0053. */
export const AUTHORITIES = ['ca', 'etcd-ca'] as const;
export type AuthorityName = (typeof AUTHORITIES)[number];

export const PURPOSES = ['client', 'agent', 'controller', 'etcd', 'etcd-client', 'nats'] as const;
export type Purpose = (typeof PURPOSES)[number];
export type HostPurpose = Exclude<Purpose, 'client'>;

export function isPurpose(word: string): word is Purpose {
  return (PURPOSES as readonly string[]).includes(word);
}

interface PurposeRule {
  readonly authority: AuthorityName;
  readonly usages: readonly Usage[];
  /** As whom its holder is on record, and, where `named`, what the certificate says. */
  readonly kind: Identity['kind'];
  readonly named: boolean;
}

const BOTH: readonly Usage[] = ['serverAuth', 'clientAuth'];
export const PURPOSE: Readonly<Record<Purpose, PurposeRule>> = {
  client: { authority: 'ca', usages: ['clientAuth'], kind: 'client', named: true },
  agent: { authority: 'ca', usages: BOTH, kind: 'host', named: true },
  controller: { authority: 'ca', usages: BOTH, kind: 'controller', named: true },
  // etcd's members ask for nothing but their authority and the address.
  etcd: { authority: 'etcd-ca', usages: BOTH, kind: 'controller', named: false },
  'etcd-client': {
    authority: 'etcd-ca',
    usages: ['clientAuth'],
    kind: 'controller',
    named: true,
  },
  // Without an identity: whoever takes a NATS server's key can speak as that server, and as nobody else.
  nats: { authority: 'ca', usages: BOTH, kind: 'host', named: false },
};

/** Which certificates a host of a kind has. */
export function purposesOf(host: { readonly voter: boolean }): readonly HostPurpose[] {
  return ['agent', 'nats', ...(host.voter ? (['controller', 'etcd', 'etcd-client'] as const) : [])];
}

export type Holder =
  | { readonly kind: 'client'; readonly name: string; readonly role: Role }
  /** `addresses`: the IP addresses at which the host's servers are reached. */
  | { readonly kind: 'host'; readonly name: string; readonly addresses: readonly string[] };

/** A certificate with all that is kept of it. No key: only its holder has that. */
export interface IssuedCertificate {
  /** Lower-case hexadecimal, no leading zeros. */
  readonly serial: string;
  readonly purpose: Purpose;
  /** "client/anna", "host/host1", "controller/host1". */
  readonly subject: string;
  /** Of a client, else empty. */
  readonly role: Role | '';
  readonly dns: readonly string[];
  readonly ips: readonly string[];
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly certificatePem: string;
}

export interface IssueOrder {
  readonly cluster: string;
  readonly purpose: Purpose;
  readonly holder: Holder;
  readonly publicKey: Parameters<typeof certify>[2];
  readonly now: Date;
  /** At most; a certificate never outlives its authority. */
  readonly validDays: number;
}

const DAY_MS = 86_400_000;

export async function issueFor(authority: Authority, order: IssueOrder): Promise<IssuedCertificate> {
  const { cluster, purpose, holder, now } = order;
  const rule = PURPOSE[purpose];
  if ((holder.kind === 'client') !== (purpose === 'client'))
    throw new TypeError(`${purpose} is not for a ${holder.kind}`);
  const leftDays = (authority.certificate.notAfter.getTime() - now.getTime()) / DAY_MS;
  if (leftDays <= 0) {
    throw new BusbarError({
      kind: 'precondition',
      reason: 'AUTHORITY_EXPIRED',
      message: `the authority that signs ${purpose} certificates ended ${authority.certificate.notAfter.toISOString()}`,
      hint: 'see "When an authority ends" in docs/security/certificates.md',
    });
  }
  const identity = identityOf(cluster, rule.kind, holder.name);
  const role = holder.kind === 'client' ? holder.role : '';
  const dns = holder.kind === 'host' ? [holder.name, 'localhost'] : [];
  const ips = holder.kind === 'host' ? [...new Set([...holder.addresses, '127.0.0.1'])] : [];
  const certificate = await certify(
    authority,
    {
      commonName: holder.name,
      now,
      validDays: Math.min(order.validDays, leftDays),
      dns,
      ips,
      uris: [...(rule.named ? [identityUri(identity)] : []), ...(role === '' ? [] : [roleUri(cluster, role)])],
      usages: rule.usages,
    },
    order.publicKey,
  );
  return describe(certificate, { purpose, subject: `${rule.kind}/${holder.name}`, role, dns, ips });
}

function identityOf(cluster: string, kind: Identity['kind'], name: string): Identity {
  return kind === 'client' ? { kind, cluster, client: name } : { kind, cluster, host: name };
}

function describe(
  certificate: x509.X509Certificate,
  of: Pick<IssuedCertificate, 'purpose' | 'subject' | 'role' | 'dns' | 'ips'>,
): IssuedCertificate {
  return {
    serial: canonicalSerial(certificate.serialNumber),
    ...of,
    notBefore: certificate.notBefore,
    notAfter: certificate.notAfter,
    certificatePem: pem(certificate),
  };
}

/** Node writes upper case, openssl groups of two with colons: one spelling, or a revoked one would not be found. */
export function canonicalSerial(text: string): string {
  return text
    .replaceAll(':', '')
    .toLowerCase()
    .replace(/^0+(?=.)/, '');
}
