// SPDX-License-Identifier: Apache-2.0
// What becomes of certificate records. Pure: signing has been done, or has not, before.
import { BusbarError } from '@busbar/core/errors';
import { Certificate } from '@busbar/proto/gen/busbar/v1/certificate';
import type { Plan } from '../api/mutate.ts';
import { notFound } from '../api/refusals.ts';
import { deleteRecord, putRecord, recordKey } from '../records/kinds.ts';
import type { Write } from '../store/cluster-store.ts';
import { absent, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';

type Tables = Pick<ClusterView, 'tables'>;

/**
 * Valid ones of one holder for one purpose. A year's certificate that is renewed in time has two; whoever renews in a
 * loop must not fill the store.
 */
export const VALID_MAX = 16;
/** Expired ones are kept this long, for whoever asks what it was. */
export const KEPT_EXPIRED_MS = 30 * 86_400_000;

export function certificateOf(view: Tables, serial: string): Certificate | undefined {
  return view.tables.certificate.get(serial)?.record.certificate;
}

export function isValid(certificate: Certificate, now: Date): boolean {
  return certificate.revokeTime === undefined && (certificate.notAfter ?? now) > now;
}

export function validOf(view: Tables, of: Pick<Certificate, 'subject' | 'purpose'>, now: Date): readonly Certificate[] {
  return view.tables.certificate
    .sorted()
    .flatMap((entry) => entry.record.certificate ?? [])
    .filter((each) => each.subject === of.subject && each.purpose === of.purpose && isValid(each, now));
}

/** Records a new certificate. */
export function planIssue(view: Tables, certificate: Certificate, now: Date): Plan<Certificate> {
  const valid = validOf(view, certificate, now);
  if (valid.length >= VALID_MAX) {
    throw new BusbarError({
      kind: 'exhausted',
      reason: 'CERTIFICATE_TOO_MANY',
      message: `"${certificate.subject}" has ${valid.length} valid certificates of this kind already`,
      hint: `revoke those that are not used any more (busbar certificate list --subject ${certificate.subject})`,
    });
  }
  return {
    compare: [absent(recordKey('certificate', certificate.serial))],
    writes: [putRecord('certificate', certificate.serial, { certificate })],
    ids: { operationId: '', resourceId: certificate.serial },
    extra: certificate,
  };
}

export interface Revocation {
  readonly serial: string;
  readonly reason: string;
  readonly unrecorded: boolean;
  readonly by: string;
  /** Of the certificate that is used for the call. */
  readonly ownSerial: string;
}

export function planRevoke(view: Tables, revocation: Revocation, now: Date): Plan<Certificate> {
  const { serial, reason, by } = revocation;
  const entry = view.tables.certificate.get(serial);
  const former = entry?.record.certificate;
  if (entry === undefined && !revocation.unrecorded) {
    const refusal = notFound('certificate', serial);
    throw new BusbarError({
      kind: refusal.kind,
      reason: refusal.reason,
      message: refusal.message,
      hint: 'see "busbar certificate list"; one that was issued before a restored backup is revoked with --unrecorded',
    });
  }
  if (serial === revocation.ownSerial) {
    throw new BusbarError({
      kind: 'precondition',
      reason: 'CERTIFICATE_IN_USE',
      message: 'this is the certificate that you are calling with',
      hint: 'use another admin certificate, so that one is left that works',
    });
  }
  const ids = { operationId: '', resourceId: serial };
  // Done already: who revoked it first stays on record.
  if (former?.revokeTime !== undefined) return { compare: [], writes: [], ids, extra: former };
  const certificate = Certificate.create({ ...former, serial, revokeTime: now, revokeReason: reason, revokedBy: by });
  return {
    compare: [entry === undefined ? absent(recordKey('certificate', serial)) : unchanged('certificate', entry)],
    writes: [putRecord('certificate', serial, { certificate })],
    ids,
    extra: certificate,
  };
}

/** Records that nobody needs any more: of certificates that every verifier refuses by itself. */
export function forgotten(view: Tables, now: Date): readonly Write[] {
  return view.tables.certificate
    .sorted()
    .filter(({ record }) => {
      const end = record.certificate?.notAfter?.getTime();
      // Without an end it is a bare revocation, which holds for ever.
      return end !== undefined && now.getTime() - end > KEPT_EXPIRED_MS;
    })
    .map((entry) => deleteRecord('certificate', entry.id));
}
