// SPDX-License-Identifier: Apache-2.0
// What becomes of certificate records. Pure: signing has been done, or has not, before.
import { BusbarError } from '@busbar/core/errors';
import { Certificate, RevocationScope } from '@busbar/proto/gen/busbar/v1/certificate';
import type { Plan } from '../api/mutate.ts';
import { notFound } from '../api/refusals.ts';
import { deleteRecord, putRecord, recordKey } from '../records/kinds.ts';
import type { Write } from '../store/cluster-store.ts';
import { absent, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { certificatesOf, lineOf, rootOf } from './line.ts';

type Tables = Pick<ClusterView, 'tables'>;

/** Lines of one holder for one purpose that have a valid certificate: what an admin may issue. Renewals are counted in line.ts. */
export const VALID_MAX = 16;
/** Expired ones are kept this long, for whoever asks what it was. */
export const KEPT_EXPIRED_MS = 30 * 86_400_000;

export function certificateOf(view: Tables, serial: string): Certificate | undefined {
  return view.tables.certificate.get(serial)?.record.certificate;
}

export function isValid(certificate: Certificate, now: Date): boolean {
  const { revokeTime, replaceTime = certificate.notAfter } = certificate;
  return revokeTime === undefined && (certificate.notAfter ?? now) > now && (replaceTime ?? now) > now;
}

export function validOf(view: Tables, of: Pick<Certificate, 'subject' | 'purpose'>, now: Date): readonly Certificate[] {
  return certificatesOf(view, of.subject).filter((each) => each.purpose === of.purpose && isValid(each, now));
}

/** Records a new certificate. */
export function planIssue(view: Tables, certificate: Certificate, now: Date): Plan<Certificate> {
  const lines = new Set(validOf(view, certificate, now).map((each) => rootOf(view, each)));
  if (lines.size >= VALID_MAX) {
    throw new BusbarError({
      kind: 'exhausted',
      reason: 'CERTIFICATE_TOO_MANY',
      message: `"${certificate.subject}" has ${lines.size} valid certificates of this kind already`,
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
  readonly scope: RevocationScope;
  readonly by: string;
  /** Of the certificate that is used for the call. */
  readonly ownSerial: string;
}

/** etcd takes 128 writes in a transaction; a few are the audit record, the request and events. */
export const REVOKED_AT_ONCE = 100;

export interface Revoked {
  readonly certificate: Certificate;
  /** The others, as they are afterwards. More than one transaction can hold are left for the next. */
  readonly also: readonly Certificate[];
}

export function planRevoke(view: Tables, revocation: Revocation, now: Date): Plan<Revoked> {
  const { serial } = revocation;
  const entry = view.tables.certificate.get(serial);
  if (entry === undefined && !revocation.unrecorded) {
    const refusal = notFound('certificate', serial);
    throw new BusbarError({
      kind: refusal.kind,
      reason: refusal.reason,
      message: refusal.message,
      hint: 'see "busbar certificate list"; one that was issued before a restored backup is revoked with --unrecorded',
    });
  }
  const former = entry?.record.certificate;
  const others = former === undefined ? [] : takenAlong(view, former, revocation.scope, now);
  for (const each of [serial, ...others.map((other) => other.serial)])
    if (each === revocation.ownSerial) throw inUse(serial, each);
  const revoked = (each: Certificate, revokedWith: string): Certificate => ({
    ...each,
    revokeTime: now,
    revokeReason: revocation.reason,
    revokedBy: revocation.by,
    revokedWith,
  });
  // Done already: who revoked it first stays on record.
  const isDone = former?.revokeTime !== undefined;
  const certificate = isDone ? former : revoked(former ?? Certificate.create({ serial }), '');
  const also = others.map((each) => revoked(each, serial));
  const changed = [...(isDone ? [] : [certificate]), ...also].slice(0, REVOKED_AT_ONCE);
  return {
    compare: changed.map((each) => {
      const known = view.tables.certificate.get(each.serial);
      return known === undefined ? absent(recordKey('certificate', each.serial)) : unchanged('certificate', known);
    }),
    writes: changed.map((each) => putRecord('certificate', each.serial, { certificate: each })),
    ids: { operationId: '', resourceId: serial },
    extra: { certificate, also },
  };
}

/** The others that end with a certificate: of its holder or of its line, those that have not ended by themselves. */
function takenAlong(view: Tables, certificate: Certificate, scope: RevocationScope, now: Date): readonly Certificate[] {
  // A bare revocation: nobody knows whose it is.
  if (certificate.subject === '' || scope === RevocationScope.CERTIFICATE) return [];
  const all = scope === RevocationScope.LINE ? lineOf(view, certificate) : certificatesOf(view, certificate.subject);
  return all.filter(
    (each) =>
      each.serial !== certificate.serial &&
      each.revokeTime === undefined &&
      (each.notAfter === undefined || each.notAfter > now),
  );
}

export function revokedWith(view: Tables, serial: string): Certificate[] {
  return view.tables.certificate
    .sorted()
    .flatMap(({ record }) => record.certificate ?? [])
    .filter((each) => each.revokedWith === serial);
}

function inUse(serial: string, own: string): BusbarError {
  const narrower = 'or narrow it: --scope line, --scope certificate';
  return new BusbarError({
    kind: 'precondition',
    reason: 'CERTIFICATE_IN_USE',
    message:
      serial === own
        ? 'this is the certificate that you are calling with'
        : `the certificate that you are calling with (${own}) would be revoked together with ${serial}`,
    hint: `use an admin certificate of another holder, so that one is left that works${serial === own ? '' : `; ${narrower}`}`,
  });
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
