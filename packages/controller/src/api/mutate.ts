// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { BusbarError } from '@busbar/core/errors';
import type { RequestRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { decodeRequest, encodeRequest, requestKey } from '../records/kinds.ts';
import type { Compare, Write } from '../store/cluster-store.ts';
import { absent } from '../view/table.ts';
import type { Api, Call } from './call.ts';

/**
 * Every mutating call goes through here: fresh view → plan (pure, from the view) → one transaction that
 * compares everything the plan relied on → answer. A lost race plans again on the newer view; a repeated request id
 * gets the first answer; validate_only stops after the plan.
 */
export interface Mutation<Ids, Response> {
  readonly method: string;
  /** The encoded request, for telling a repeat from a reuse. */
  readonly content: Uint8Array;
  readonly requestId: string;
  readonly validateOnly: boolean;
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

/** A race lost five times in a row means that something writes this record all the time. */
const RACES_MAX = 5;

export async function mutate<Ids, Response>(
  api: Api,
  call: Call,
  mutation: Mutation<Ids, Response>,
): Promise<Response> {
  await api.view.fresh();
  const key = mutation.requestId === '' ? null : requestKey(call.caller.name, mutation.requestId);
  const digest = createHash('sha256').update(mutation.method).update('\0').update(mutation.content).digest('hex');
  if (key !== null && !mutation.validateOnly) {
    const former = (await api.store.get(key)).value;
    if (former !== null) return replay(mutation, decodeRequest(former.value), digest);
  }
  for (let race = 0; race < RACES_MAX; race++) {
    const plan = mutation.plan();
    if (mutation.validateOnly) return mutation.preview(plan);
    const request: { compare: Compare[]; writes: Write[] } = { compare: [], writes: [] };
    if (key !== null) {
      request.compare.push(absent(key));
      request.writes.push({
        kind: 'put',
        key,
        value: encodeRequest({ digest, ...plan.ids }),
        lease: await api.requestLeases.current(),
      });
    }
    const result = await api.store.txn({
      compare: [...plan.compare, ...request.compare],
      writes: [...plan.writes, ...request.writes],
    });
    if (result.succeeded) {
      await api.view.waitFor(result.revision);
      return mutation.respond(plan.ids);
    }
    if (key !== null) {
      const former = (await api.store.get(key)).value;
      if (former !== null) {
        await api.view.fresh();
        return replay(mutation, decodeRequest(former.value), digest);
      }
    }
    await api.view.fresh();
  }
  throw new BusbarError({
    kind: 'conflict',
    reason: 'TOO_MANY_RACES',
    message: `what this request relies on changed ${RACES_MAX} times while it was being written`,
    hint: 'send it again',
  });
}

function replay<Ids, Response>(mutation: Mutation<Ids, Response>, former: RequestRecord, digest: string): Response {
  if (former.digest !== digest) {
    throw new BusbarError({
      kind: 'already-exists',
      reason: 'REQUEST_ID_REUSED',
      message: `request id "${mutation.requestId}" was used for another request within the last hour`,
      hint: 'use a new request id (a UUID) for each request, and the same one only to repeat it',
    });
  }
  return mutation.respond(former);
}
