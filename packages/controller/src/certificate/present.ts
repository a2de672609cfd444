// SPDX-License-Identifier: Apache-2.0
import type { IssuedCertificate, Purpose } from '@busbar/pki/purpose';
import type { Role } from '@busbar/pki/role';
import { Certificate, CertificatePurpose, ClientRole } from '@busbar/proto/gen/busbar/v1/certificate';
import type { PresentedCertificate } from '../api/authenticate.ts';

const ROLE_WORDS: Readonly<Record<Role, ClientRole>> = {
  viewer: ClientRole.VIEWER,
  operator: ClientRole.OPERATOR,
  admin: ClientRole.ADMIN,
};
const PURPOSE_WORDS: Readonly<Record<Purpose, CertificatePurpose>> = {
  client: CertificatePurpose.CLIENT,
  agent: CertificatePurpose.AGENT,
  controller: CertificatePurpose.CONTROLLER,
  etcd: CertificatePurpose.ETCD,
  'etcd-client': CertificatePurpose.ETCD_CLIENT,
  nats: CertificatePurpose.NATS,
};

export function presentPurpose(purpose: Purpose): CertificatePurpose {
  return PURPOSE_WORDS[purpose];
}

/** The table read backwards; undefined for UNSPECIFIED and what a newer client may send. */
export function purposeOf(word: CertificatePurpose): Purpose | undefined {
  return (Object.keys(PURPOSE_WORDS) as Purpose[]).find((purpose) => PURPOSE_WORDS[purpose] === word);
}

export function roleOf(word: ClientRole): Role | undefined {
  return (Object.keys(ROLE_WORDS) as Role[]).find((role) => ROLE_WORDS[role] === word);
}

export function newCertificate(
  issued: IssuedCertificate,
  by: { readonly name: string; readonly time: Date },
): Certificate {
  return {
    serial: issued.serial,
    purpose: PURPOSE_WORDS[issued.purpose],
    subject: issued.subject,
    role: issued.role === '' ? ClientRole.UNSPECIFIED : ROLE_WORDS[issued.role],
    dnsNames: [...issued.dns],
    ipAddresses: [...issued.ips],
    notBefore: issued.notBefore,
    notAfter: issued.notAfter,
    issuedBy: by.name,
    issueTime: by.time,
    revokeTime: undefined,
    revokeReason: '',
    revokedBy: '',
    certificatePem: issued.certificatePem,
    parentSerial: '',
    successorSerial: '',
    firstUseTime: undefined,
    replaceTime: undefined,
    revokedWith: '',
  };
}

/** Of a certificate of which the cluster has no record: what TLS has shown of it. */
export function shownCertificate(shown: PresentedCertificate, subject: string, role: Role | null): Certificate {
  return Certificate.create({
    serial: shown.serial,
    purpose: OWN_PURPOSE[subject.slice(0, subject.indexOf('/')) as keyof typeof OWN_PURPOSE],
    subject,
    role: role === null ? ClientRole.UNSPECIFIED : ROLE_WORDS[role],
    ipAddresses: [...shown.ips],
    notBefore: shown.notBefore,
    notAfter: shown.notAfter,
  });
}

/** The purpose of the certificate by which a holder of each kind is known. */
const OWN_PURPOSE = {
  client: CertificatePurpose.CLIENT,
  host: CertificatePurpose.AGENT,
  controller: CertificatePurpose.CONTROLLER,
} as const;
