// SPDX-License-Identifier: Apache-2.0
// What becomes of join tokens. Pure: the secret was checked and certificates were signed before.
import { BusbarError } from '@busbar/core/errors';
import type { JoinTokenRecord } from '@busbar/proto/gen/busbar/store/v1/pki';
import type { Certificate } from '@busbar/proto/gen/busbar/v1/certificate';
import type { JoinTokenInfo } from '@busbar/proto/gen/busbar/v1/join';
import type { Plan } from '../api/mutate.ts';
import { notFound } from '../api/refusals.ts';
import { certificateOf, planIssue } from '../certificate/plan.ts';
import { deleteRecord, putRecord, recordKey } from '../records/kinds.ts';
import type { LeaseId } from '../store/cluster-store.ts';
import { absent, type Entry, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { addressInUse, takenAddress } from './addresses.ts';

type Tables = Pick<ClusterView, 'tables'>;

/** A token is used within the hour; more than this many is a script that has gone wrong. */
const TOKENS_MAX = 64;

type Controllers = readonly { readonly host: string; readonly address: string }[];

export function planCreate(
  view: Tables,
  controllers: Controllers,
  record: JoinTokenRecord,
  now: Date,
): Plan<JoinTokenInfo> {
  if (view.tables['join-token'].size >= TOKENS_MAX) {
    throw new BusbarError({
      kind: 'exhausted',
      reason: 'JOIN_TOKEN_TOO_MANY',
      message: `there are ${TOKENS_MAX} join tokens already`,
      hint: 'withdraw those that are not needed (busbar host token delete), or wait: they vanish a day after their end',
    });
  }
  const token = tokenOf(record);
  const taken = takenAddress(view, controllers, token.host, token.addresses, now);
  if (taken !== null) throw addressInUse(token.host, taken);
  return {
    compare: [absent(recordKey('join-token', token.id))],
    writes: [putRecord('join-token', token.id, record, record.lease as LeaseId)],
    ids: { operationId: '', resourceId: token.id },
    extra: token,
  };
}

export function planDelete(view: Tables, id: string): Plan<null> {
  const entry = view.tables['join-token'].get(id);
  if (entry === undefined) {
    const { kind, message } = notFound('join token', id);
    throw new BusbarError({ kind, reason: 'JOIN_TOKEN_NOT_FOUND', message, hint: 'see "busbar host token list"' });
  }
  return {
    compare: [unchanged('join-token', entry)],
    writes: [deleteRecord('join-token', id)],
    ids: { operationId: '', resourceId: id },
    extra: null,
  };
}

/**
 * Whether a token whose secret is right may be used for this request: null when it may, the serial numbers of what was
 * issued when this very request has used it before. Else it throws.
 */
export function formerUse(
  view: Tables,
  record: JoinTokenRecord,
  requestDigest: string,
  now: Date,
): readonly string[] | null {
  const { expireTime, useTime, host } = tokenOf(record);
  if (expireTime === undefined || expireTime <= now) {
    throw new BusbarError({
      kind: 'forbidden',
      reason: 'JOIN_TOKEN_EXPIRED',
      message: `the join token for host "${host}" ended ${expireTime?.toISOString() ?? 'before'}`,
      hint: NEW_TOKEN,
    });
  }
  if (record.requestDigest === '') return null;
  if (record.requestDigest === requestDigest) {
    // Nor is the seal key in the answer for whoever was shut out since.
    const revoked = record.serials.find((serial) => certificateOf(view, serial)?.revokeTime !== undefined);
    if (revoked === undefined) return record.serials;
    throw new BusbarError({
      kind: 'forbidden',
      reason: 'JOIN_TOKEN_REVOKED',
      message: `the certificate ${revoked}, which host "${host}" got for this join token, was revoked`,
      hint: NEW_TOKEN,
    });
  }
  throw new BusbarError({
    kind: 'forbidden',
    reason: 'JOIN_TOKEN_USED',
    message: `the join token for host "${host}" was used ${useTime?.toISOString() ?? 'before'}, with other keys`,
    hint: `if that was not you, somebody else has this host's certificates: revoke them (busbar certificate list --subject host/${host}); ${NEW_TOKEN}`,
  });
}

export const NEW_TOKEN = 'make a new one with "busbar host token create"';

/** Uses a token: its certificates and the note that it was used, or nothing. */
export function planRedeem(
  view: Tables,
  id: string,
  use: { readonly requestDigest: string; readonly certificates: readonly Certificate[]; readonly now: Date },
): Plan<null> {
  const entry = view.tables['join-token'].get(id);
  if (entry === undefined) throw unknownToken();
  const ids = { operationId: '', resourceId: id };
  if (formerUse(view, entry.record, use.requestDigest, use.now) !== null)
    return { compare: [], writes: [], ids, extra: null };
  const issued = use.certificates.map((certificate) => planIssue(view, certificate, use.now));
  return {
    compare: [unchanged('join-token', entry), ...issued.flatMap((plan) => plan.compare)],
    writes: [useToken(entry, use), ...issued.flatMap((plan) => plan.writes)],
    ids,
    extra: null,
  };
}

function useToken(
  entry: Entry<JoinTokenRecord>,
  use: { readonly requestDigest: string; readonly certificates: readonly Certificate[]; readonly now: Date },
) {
  const record: JoinTokenRecord = {
    ...entry.record,
    token: { ...tokenOf(entry.record), useTime: use.now },
    requestDigest: use.requestDigest,
    serials: use.certificates.map((certificate) => certificate.serial),
  };
  return putRecord('join-token', entry.id, record, entry.record.lease as LeaseId);
}

export function tokenOf(record: JoinTokenRecord): JoinTokenInfo {
  if (record.token === undefined) throw new TypeError('a join token without its public part');
  return record.token;
}

/** The same for an unknown token and a wrong secret: ids are no secret, but nobody needs to be told which exist. */
export function unknownToken(): BusbarError {
  return new BusbarError({
    kind: 'forbidden',
    reason: 'JOIN_TOKEN_INVALID',
    message:
      'the cluster does not know this join token: it was withdrawn, ended more than a day ago, or is not of this cluster',
    hint: NEW_TOKEN,
  });
}
