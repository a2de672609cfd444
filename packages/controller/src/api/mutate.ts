// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import type { RequestRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { audited } from '../audit/change.ts';
import { assertNotBehind } from '../cluster/behind.ts';
import { decodeRequest, encodeRequest, requestKey } from '../records/kinds.ts';
import type { Compare, KeyValue, LeaseId, Transaction, TransactionResult, Write } from '../store/cluster-store.ts';
import { absent } from '../view/table.ts';
import type { Api, Call } from './call.ts';

/**
 * Every mutating call goes through here: view → plan (pure, from the view) → one transaction that
 * compares everything the plan relied on → answer. A lost race plans again on the newer view; a repeated request id
 * gets the first answer; validate_only stops after the plan. The transaction also holds the call's audit record and the
 * events of the change: one transaction, or nothing.
 */
export interface Mutation<Ids, Response> {
  readonly method: string;
  /** The encoded request, for telling a repeat from a reuse. */
  readonly content: Uint8Array;
  readonly requestId: string;
  readonly validateOnly: boolean;
  /** It may be done while the store is known to have gone back in time: it neither starts, moves nor removes anything. */
  readonly whileBehind?: boolean;
  /** Throws a BusbarError when the request cannot be done. */
  readonly plan: () => Plan<Ids>;
  readonly preview: (plan: Plan<Ids>) => Response;
  /** Builds the answer from the view, which holds at least what was written. */
  readonly respond: (ids: StoredIds) => Response;
}

export interface StoredIds {
  readonly operationId: string;
  readonly resourceId: string;
}

export interface Plan<Ids> {
  readonly compare: readonly Compare[];
  readonly writes: readonly Write[];
  readonly ids: StoredIds;
  /** What `preview` shows besides. */
  readonly extra: Ids;
}

/** The hopeful attempt, and five more: a race lost that often in a row means that something writes this record all the time. */
const ATTEMPTS_MAX = 6;

export async function mutate<Ids, Response>(
  api: Api,
  call: Call,
  mutation: Mutation<Ids, Response>,
): Promise<Response> {
  const key = mutation.requestId === '' ? null : requestKey(call.caller.name, mutation.requestId);
  // Requests hold passwords (user data): a plain hash in etcd would let anybody with a copy of it try guesses.
  const digest = key === null ? '' : api.seal.digest(mutation.content, `${mutation.method} ${key}`);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    // The first attempt trusts the view as it is while the store is known to work: it saves two round trips, and a view
    // that lags costs a lost race. Whatever is refused on its ground is looked at again on a fresh one.
    const hopeful = attempt === 0 && !mutation.validateOnly && api.view.followsStore();
    if (!hopeful) {
      await api.view.fresh();
      const former = key === null || mutation.validateOnly ? null : (await api.store.get(key)).value;
      if (former !== null) return replay(api, call, mutation, former, digest);
    }
    let plan: Plan<Ids>;
    try {
      if (!mutation.whileBehind) assertNotBehind(api.view);
      plan = mutation.plan();
    } catch (error) {
      if (hopeful && error instanceof BusbarError) continue;
      throw error;
    }
    if (mutation.validateOnly) return mutation.preview(plan);
    const change = audited(api, call, { ...plan, requestId: mutation.requestId });
    const result =
      key === null
        ? await api.commit(call, change)
        : await withRequest(api, call, change, key, { digest, ...plan.ids });
    if (result.succeeded) {
      call.audit.settled = true;
      await caughtUp(api, result.revision, plan.ids);
      return mutation.respond(plan.ids);
    }
  }
  throw new BusbarError({
    kind: 'conflict',
    reason: 'TOO_MANY_RACES',
    message: `what this request relies on changed ${ATTEMPTS_MAX} times while it was being written`,
    hint: 'send it again',
  });
}

/** The change's transaction, and in it the answer to the request id. */
async function withRequest(
  api: Api,
  call: Call,
  change: Transaction,
  key: string,
  answer: RequestRecord,
): Promise<TransactionResult> {
  const value = encodeRequest(answer);
  return withRequestLease(api, (lease) =>
    api.commit(call, {
      compare: [...change.compare, absent(key)],
      writes: [...change.writes, { kind: 'put', key, value, lease }],
    }),
  );
}

/** A write under the lease that request ids live on; with another lease when that one is gone. */
export async function withRequestLease<T>(api: Api, write: (lease: LeaseId) => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    const lease = await api.requestLeases.current();
    try {
      return await write(lease);
    } catch (error) {
      // The store was restored, or this controller stood still for an hour: nothing was written, take another lease.
      if (!(error instanceof BusbarError && error.reason === 'LEASE_GONE') || attempt > 0) throw error;
      api.requestLeases.renew();
    }
  }
}

/** The write is done. A view that lags must not make that look like a failure that invites a repeat. */
export async function caughtUp(api: Api, revision: Revision, ids: StoredIds): Promise<void> {
  await api.view.waitFor(revision).catch((cause: unknown) => {
    const what = ids.operationId === '' ? `resource ${ids.resourceId}` : `operation ${ids.operationId}`;
    throw new BusbarError({
      kind: 'timeout',
      reason: 'DONE_BUT_NOT_SEEN',
      message: `the request was carried out (${what}), but this controller is behind the cluster store and cannot show it`,
      hint: 'do not send it again without its request id; look at the resource in a moment, or ask another controller',
      cause,
    });
  });
}

/** What a request is, independent of the order in which a client happened to encode its maps (Go shuffles them). */
export function contentOf<T extends object>(
  codec: { encode(message: T): { finish(): Uint8Array } },
  request: T,
): Uint8Array {
  return codec.encode(ordered({ ...request, requestId: '' }) as T).finish();
}

function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered);
  if (value === null || typeof value !== 'object' || value instanceof Date || ArrayBuffer.isView(value)) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, item]) => [key, ordered(item)]));
}

async function replay<Ids, Response>(
  api: Api,
  call: Call,
  mutation: Mutation<Ids, Response>,
  kept: KeyValue,
  digest: string,
): Promise<Response> {
  const former = decodeRequest(kept.value);
  if (former.digest !== digest) {
    throw new BusbarError({
      kind: 'already-exists',
      reason: 'REQUEST_ID_REUSED',
      message: `request id "${mutation.requestId}" was used for another request within the last hour`,
      hint: 'use a new request id (a UUID) for each request, and the same one only to repeat it',
    });
  }
  // Its change has a record already.
  call.audit.settled = true;
  // It may have been written, by another controller, after this one's view was brought up to date.
  await caughtUp(api, kept.modRevision, former);
  return mutation.respond(former);
}
