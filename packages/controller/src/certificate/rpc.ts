// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { CLOCK_SKEW_MS } from '@busbar/pki/authority';
import { CERTIFICATE_DAYS } from '@busbar/pki/found';
import { isIdentityName } from '@busbar/pki/identity';
import { canonicalSerial, type Holder, PURPOSE, type Purpose } from '@busbar/pki/purpose';
import {
  type Certificate,
  CertificatePurpose,
  type CertificateServiceDefinition,
  ClientRole,
  IssueCertificateRequest,
  RenewCertificateRequest,
  RevocationScope,
  RevokeCertificateRequest,
} from '@busbar/proto/gen/busbar/v1/certificate';
import { z } from 'zod';
import type { Api, Call, Caller } from '../api/call.ts';
import { contentOf, mutate, type Plan } from '../api/mutate.ts';
import { page, pageFields } from '../api/pages.ts';
import type { Service } from '../api/service.ts';
import { plainText, requestId } from '../api/validation.ts';
import { text, word } from '../bounds/schema.ts';
import { sign } from './authority.ts';
import { planRenew } from './line.ts';
import { certificateOf, planIssue, planRevoke, REVOKED_AT_ONCE, type Revoked, revokedWith, validOf } from './plan.ts';
import { newCertificate, presentPurpose, purposeOf, roleOf, shownCertificate } from './present.ts';

const CLIENT_NAME = 'a lower-case DNS label: up to 63 letters, digits and hyphens';
/** One for an RSA key of 4096 bits with a dozen names has 2 KB. */
export const csrPem = text(4_096, 'a certificate request, PEM, of at most 4096 characters');
const { UNRECOGNIZED: _, ...KNOWN_PURPOSES } = CertificatePurpose;
/** libvirt's stay readable in the records and are never made again (ADR 0053). An agent from before still asks for them. */
const PURPOSE_WORDS = Object.values(KNOWN_PURPOSES).filter((word) => word !== CertificatePurpose.LIBVIRT);
const SCOPES = [
  RevocationScope.UNSPECIFIED,
  RevocationScope.HOLDER,
  RevocationScope.LINE,
  RevocationScope.CERTIFICATE,
] as const;
const ROLES = [ClientRole.VIEWER, ClientRole.OPERATOR, ClientRole.ADMIN] as const;

export function certificateService(api: Api): Service<typeof CertificateServiceDefinition> {
  return {
    issueCertificate: {
      access: 'administer',
      schema: z.object({
        csrPem,
        client: text(63, CLIENT_NAME).refine(isIdentityName, CLIENT_NAME),
        role: z.enum(ROLES, ROLES.join(', ')),
        validDays: z
          .number('1 to 3650 days')
          .int('1 to 3650 days')
          .min(0, '1 to 3650 days')
          .max(3_650, '1 to 3650 days'),
        validateOnly: z.boolean(),
        requestId,
      }),
      handle: (request, call) => issueCertificate(api, request, call),
    },
    listCertificates: {
      access: 'read',
      schema: z.object({ ...pageFields, subject: text(160, 'a subject such as host/host1') }),
      async handle(request) {
        const revision = await api.view.fresh();
        const wanted = api.view.tables.certificate
          .sorted()
          .flatMap((entry) => entry.record.certificate ?? [])
          .filter((each) => request.subject === '' || each.subject === request.subject);
        const { items, nextPageToken } = page(wanted, (each) => each.serial, request);
        return { certificates: [...items], nextPageToken, revision };
      },
    },
    revokeCertificate: {
      access: 'administer',
      schema: z.object({
        serial: word(128, /^[0-9a-fA-F:]+$/, 'a serial number, hexadecimal'),
        reason: plainText(200, 'at most 200 characters'),
        unrecorded: z.boolean(),
        scope: z.enum(SCOPES, SCOPES.join(', ')),
        validateOnly: z.boolean(),
        requestId,
      }),
      handle: (request, call) => revokeCertificate(api, request, call),
    },
    renewCertificate: {
      access: 'renew',
      schema: z.object({
        csrPem,
        purpose: z.enum(PURPOSE_WORDS, PURPOSE_WORDS.join(', ')),
        validateOnly: z.boolean(),
        requestId,
      }),
      handle: (request, call) => renewCertificate(api, request, call),
    },
  };
}

async function issueCertificate(api: Api, request: IssueCertificateRequest, call: Call) {
  await api.view.fresh();
  const role = roleOf(request.role);
  if (role === undefined) throw new TypeError('the schema lets no other role in');
  const issued = await sign(
    api,
    {
      purpose: 'client',
      holder: { kind: 'client', name: request.client, role },
      validDays: request.validDays || CERTIFICATE_DAYS,
    },
    { field: 'csrPem', pem: request.csrPem },
  );
  const certificate = newCertificate(issued, { name: call.caller.name, time: api.clock.wallTime() });
  return record(api, call, {
    method: 'IssueCertificate',
    content: contentOf(IssueCertificateRequest, request),
    request,
    plan: () => planIssue(api.view, certificate, api.clock.wallTime()),
  });
}

async function revokeCertificate(api: Api, request: RevokeCertificateRequest, call: Call) {
  const revocation = {
    serial: canonicalSerial(request.serial),
    reason: request.reason,
    unrecorded: request.unrecorded,
    scope: request.scope,
    by: call.caller.name,
    ownSerial: call.caller.certificate?.serial ?? '',
  };
  const plan = () => planRevoke(api.view, revocation, api.clock.wallTime());
  if (!request.validateOnly) await revokeMost(api, call, plan);
  return mutate(api, call, {
    method: 'RevokeCertificate',
    whileBehind: true,
    content: contentOf(RevokeCertificateRequest, request),
    requestId: request.requestId,
    validateOnly: request.validateOnly,
    plan,
    preview: ({ extra }) => ({ certificate: extra.certificate, alsoRevoked: [...extra.also] }),
    respond: ({ resourceId }) => ({
      certificate: certificateOf(api.view, resourceId),
      alsoRevoked: revokedWith(api.view, resourceId),
    }),
  });
}

/** Of more than fit into one transaction, all but the last: that one is told, and has the audit record. */
async function revokeMost(api: Api, call: Call, plan: () => Plan<Revoked>): Promise<void> {
  await api.view.fresh();
  for (;;) {
    const { compare, writes, extra } = plan();
    if (extra.also.length < REVOKED_AT_ONCE) return;
    await api.view.waitFor((await api.commit(call, { compare, writes })).revision);
  }
}

async function renewCertificate(api: Api, request: RenewCertificateRequest, call: Call) {
  await api.view.fresh();
  const { holder, purpose } = successor(api, call.caller, purposeOf(request.purpose));
  const issued = await sign(
    api,
    { purpose, holder, validDays: lifetimeDays(call.caller) },
    { field: 'csrPem', pem: request.csrPem },
  );
  const { name, role, certificate: shown } = call.caller;
  if (shown === null) throw new TypeError('the pipeline lets nobody renew without a certificate');
  const parent = certificateOf(api.view, shown.serial) ?? shownCertificate(shown, name, role);
  const certificate = newCertificate(issued, { name, time: api.clock.wallTime() });
  return record(api, call, {
    method: 'RenewCertificate',
    content: contentOf(RenewCertificateRequest, request),
    request,
    plan: () => planRenew(api.view, parent, certificate, api.clock.wallTime()),
  });
}

/** As long as the one in hand: who was let in for a month does not let himself in for a year. */
function lifetimeDays({ certificate }: Caller): number {
  if (certificate === null) return CERTIFICATE_DAYS;
  return (certificate.notAfter.getTime() - certificate.notBefore.getTime() - CLOCK_SKEW_MS) / 86_400_000;
}

/** The purpose of the certificate by which a holder of each kind is known. */
const OWN: Readonly<Record<'client' | 'host' | 'controller', Purpose>> = {
  client: 'client',
  host: 'agent',
  controller: 'controller',
};

/** Whom a renewal is for: exactly who calls. Nothing of it is taken from the request. */
function successor(api: Api, caller: Caller, wanted: Purpose | undefined): { holder: Holder; purpose: Purpose } {
  const [kind, name] = caller.name.split('/') as ['client' | 'host' | 'controller', string];
  const purpose = wanted ?? OWN[kind];
  const ownKind = PURPOSE[purpose].kind === kind;
  if (purpose !== OWN[kind]) {
    // Another certificate of the same host: a successor needs one to succeed.
    const of = { subject: caller.name, purpose: presentPurpose(purpose) };
    if (!ownKind || validOf(api.view, of, api.clock.wallTime()).length === 0) {
      throw new BusbarError({
        kind: 'forbidden',
        reason: 'NOTHING_TO_RENEW',
        message: `"${caller.name}" has no valid certificate of purpose ${purpose} that could be renewed`,
        hint: 'an agent renews AGENT and NATS, a controller CONTROLLER, ETCD and ETCD_CLIENT, a client CLIENT; for anything else, let the host join again',
      });
    }
  }
  if (caller.role !== null) return { purpose, holder: { kind: 'client', name, role: caller.role } };
  return { purpose, holder: { kind: 'host', name, addresses: caller.certificate?.ips ?? [] } };
}

/** Records a signed certificate, and only then hands it out. */
function record(
  api: Api,
  call: Call,
  what: {
    readonly method: string;
    readonly content: Uint8Array;
    readonly request: { readonly requestId: string; readonly validateOnly: boolean };
    readonly plan: () => Plan<Certificate>;
  },
): Promise<{ certificate: Certificate | undefined }> {
  return mutate(api, call, {
    method: what.method,
    whileBehind: true,
    content: what.content,
    requestId: what.request.requestId,
    validateOnly: what.request.validateOnly,
    plan: what.plan,
    // A dry run must not hand out a certificate that nobody has recorded.
    preview: (plan) => ({ certificate: { ...plan.extra, certificatePem: '' } }),
    respond: (ids) => ({ certificate: certificateOf(api.view, ids.resourceId) }),
  });
}
