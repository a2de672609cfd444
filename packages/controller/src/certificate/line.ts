// SPDX-License-Identifier: Apache-2.0
// Lines of certificates (ADR 0047). Pure. A certificate that is renewed has one successor, which knows its parent:
//
//   issued ── renewed ──> successor, unused ── first use ──> successor, used
//                             │                                  └─ the parent ends REPLACED_AFTER_MS later
//                             └─ renewed once more: revoked, the newer one takes its place
//
// Writers: a renewal writes the parent, its former successor and the new one in one transaction; first-use.ts writes a
// successor and its parent; a revocation writes whom it takes. Each compares what it writes, and a renewal always writes
// the parent: so of a renewal and a revocation at the same time one sees the other.
import { BusbarError } from '@busbar/core/errors';
import { spkiPin } from '@busbar/pki/csr';
import type { Certificate } from '@busbar/proto/gen/busbar/v1/certificate';
import type { Plan } from '../api/mutate.ts';
import { putRecord, recordKey } from '../records/kinds.ts';
import type { Compare, Write } from '../store/cluster-store.ts';
import { absent, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { certificateRevoked } from './refusals.ts';

type Tables = Pick<ClusterView, 'tables'>;
type Change = { readonly compare: readonly Compare[]; readonly writes: readonly Write[] };

/**
 * Between the first use of a successor and the end of its parent. Daemons use a new pair within 10 s; what people have
 * open by the former one (a console, an import) gets time to come to its end.
 */
export const REPLACED_AFTER_MS = 600_000;
/**
 * Renewals of one line within a day: who renews in a loop must not fill the store (2 KB each). A daemon that cannot write
 * its files asks once an hour.
 */
export const RENEWALS_PER_DAY_MAX = 50;
const DAY_MS = 86_400_000;

export function certificatesOf(view: Tables, subject: string): readonly Certificate[] {
  return view.tables.certificate
    .sorted()
    .flatMap(({ record }) => record.certificate ?? [])
    .filter((each) => each.subject === subject);
}

/** The serial number at the top of a certificate's line, whether there still is a record of it or not. */
export function rootOf(view: Tables, certificate: Certificate): string {
  const seen = new Set<string>();
  let top = certificate;
  for (;;) {
    if (top.parentSerial === '' || seen.has(top.serial)) return top.serial;
    seen.add(top.serial);
    const parent = view.tables.certificate.get(top.parentSerial)?.record.certificate;
    if (parent === undefined) return top.parentSerial;
    top = parent;
  }
}

/** All of its line, itself included. Its holder's, while that has one of which nobody knows any more what it was renewed from. */
export function lineOf(view: Tables, certificate: Certificate): readonly Certificate[] {
  const all = certificatesOf(view, certificate.subject);
  if (all.some(hasUnknownParent)) return all;
  const root = rootOf(view, certificate);
  return all.filter((each) => rootOf(view, each) === root);
}

/** It was renewed by its holder before parents were recorded. */
function hasUnknownParent(each: Certificate): boolean {
  return each.parentSerial === '' && each.issuedBy === each.subject;
}

/**
 * Records `issued`, got with the certificate `parent`: as the cluster has recorded that, or, of one that it does not know (issued
 * before a backup that was restored, or forged), as TLS has shown it.
 */
export function planRenew(view: Tables, parent: Certificate, issued: Certificate, now: Date): Plan<Certificate> {
  const entry = view.tables.certificate.get(parent.serial);
  const former = entry?.record.certificate ?? parent;
  if (former.revokeTime !== undefined) throw certificateRevoked(former.serial);
  const succeeds = former.purpose === issued.purpose;
  const successor = succeeds ? view.tables.certificate.get(former.successorSerial) : undefined;
  const present = successor?.record.certificate;
  if (present !== undefined && present.revokeTime === undefined && sameKey(present, issued))
    return { compare: [], writes: [], ids: { operationId: '', resourceId: present.serial }, extra: present };
  if (present?.firstUseTime !== undefined) throw renewedAlready(former, present);
  const lately = lineOf(view, former).filter(
    ({ parentSerial, issueTime }) => parentSerial !== '' && now.getTime() - (issueTime?.getTime() ?? 0) < DAY_MS,
  );
  if (lately.length >= RENEWALS_PER_DAY_MAX) throw renewedTooOften(former);

  const certificate: Certificate = { ...issued, parentSerial: former.serial };
  // To renew is to use: what was got with a certificate must not outlive it because nobody had noted that yet.
  const use = firstUse(view, former.serial, now);
  const used: Certificate = {
    ...former,
    firstUseTime: former.firstUseTime ?? (former.parentSerial === '' ? undefined : now),
    successorSerial: succeeds ? certificate.serial : former.successorSerial,
  };
  const revoked =
    successor === undefined || present === undefined || present.revokeTime !== undefined
      ? { compare: [], writes: [] }
      : {
          compare: [unchanged('certificate', successor)],
          writes: [
            put({
              ...present,
              revokeTime: now,
              revokeReason: 'never used, and renewed again',
              revokedBy: former.subject,
            }),
          ],
        };
  return {
    compare: [
      absent(recordKey('certificate', certificate.serial)),
      entry === undefined ? absent(recordKey('certificate', former.serial)) : unchanged('certificate', entry),
      ...use.parent.compare,
      ...revoked.compare,
    ],
    writes: [put(certificate), put(used), ...use.parent.writes, ...revoked.writes],
    ids: { operationId: '', resourceId: certificate.serial },
    extra: certificate,
  };
}

/** What is written when a certificate that was got by a renewal is used for the first time; null when it is not that. */
export function planFirstUse(view: Tables, serial: string, now: Date): Change | null {
  const entry = view.tables.certificate.get(serial);
  const certificate = entry?.record.certificate;
  if (entry === undefined || certificate === undefined || !isUnused(certificate)) return null;
  const { parent } = firstUse(view, serial, now);
  return {
    compare: [unchanged('certificate', entry), ...parent.compare],
    writes: [put({ ...certificate, firstUseTime: now }), ...parent.writes],
  };
}

export function isUnused(certificate: Certificate): boolean {
  return certificate.parentSerial !== '' && certificate.firstUseTime === undefined;
}

/** The part of the parent: it ends soon. */
function firstUse(view: Tables, serial: string, now: Date): { readonly parent: Change } {
  const certificate = view.tables.certificate.get(serial)?.record.certificate;
  const entry = certificate === undefined ? undefined : view.tables.certificate.get(certificate.parentSerial);
  const parent = entry?.record.certificate;
  if (
    certificate === undefined ||
    entry === undefined ||
    parent === undefined ||
    !isUnused(certificate) ||
    parent.successorSerial !== serial
  )
    return { parent: { compare: [], writes: [] } };
  const replaceTime = new Date(now.getTime() + REPLACED_AFTER_MS);
  return { parent: { compare: [unchanged('certificate', entry)], writes: [put({ ...parent, replaceTime })] } };
}

function put(certificate: Certificate): Write {
  return putRecord('certificate', certificate.serial, { certificate });
}

function sameKey(a: Certificate, b: Certificate): boolean {
  return spkiPin(a.certificatePem) === spkiPin(b.certificatePem);
}

function renewedAlready(former: Certificate, present: Certificate): BusbarError {
  return new BusbarError({
    kind: 'precondition',
    reason: 'CERTIFICATE_RENEWED',
    message: `the certificate ${former.serial} was renewed already: ${present.serial} is in use since ${present.firstUseTime?.toISOString()}`,
    hint: `use that one; if it is not yours, somebody else has the key of "${former.subject}": an admin revokes it (busbar certificate revoke ${former.serial})`,
  });
}

function renewedTooOften(former: Certificate): BusbarError {
  return new BusbarError({
    kind: 'exhausted',
    reason: 'RENEWED_TOO_OFTEN',
    message: `certificates of the line of ${former.serial} ("${former.subject}") were renewed ${RENEWALS_PER_DAY_MAX} times within a day`,
    hint: 'the present one stays valid; if that was not you, somebody else has its key: an admin revokes it',
  });
}
