// SPDX-License-Identifier: Apache-2.0
import { systemClock, withDeadline } from '@busbar/core/clock/clock';
import type { BusbarError } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import { expect } from 'vitest';
import type { ClusterStore, WatchBatch, WatchEvent } from './cluster-store.ts';

/** What the examiners of a store need: small words for writing, watching and waiting. */
const DEADLINE_MS = 15_000;

export async function put(store: ClusterStore, key: string, value: string): Promise<Revision> {
  return (await store.txn({ compare: [], writes: [{ kind: 'put', key, value }] })).revision;
}

export async function putLeased(
  store: ClusterStore,
  key: string,
  lease: Awaited<ReturnType<ClusterStore['grantLease']>>['id'],
) {
  await store.txn({ compare: [], writes: [{ kind: 'put', key, value: 'leased', lease }] });
}

export function summary(event: WatchEvent): string {
  return event.kind === 'put' ? `${event.kv.key}=${event.kv.value}` : `${event.key} deleted`;
}

export function revisionOf(event: WatchEvent): Revision {
  return event.kind === 'put' ? event.kv.modRevision : event.modRevision;
}

/** Runs a watch in the background and lets a test wait until it has seen enough. */
export function collect(store: ClusterStore, prefix: string, after: Revision) {
  const abort = new AbortController();
  const events: WatchEvent[] = [];
  let wake = () => {};
  let failure: unknown;
  const run = async () => {
    let position = after;
    for await (const batch of store.watch(prefix, after, abort.signal)) {
      if (batch.kind === 'compacted') throw new Error(`watch of ${prefix} got "compacted"`);
      expect(batch.revision).toBeGreaterThanOrEqual(position);
      if (batch.kind === 'events') {
        const revisions = batch.events.map(revisionOf);
        expect(revisions[0]).toBeGreaterThan(position);
        expect(revisions).toEqual(revisions.toSorted((a, b) => Number(a - b)));
        expect(batch.revision).toBeGreaterThanOrEqual(revisions.at(-1) ?? 0n);
        events.push(...batch.events);
      }
      position = batch.revision;
      wake();
    }
  };
  run().catch((error: unknown) => {
    failure = error;
    wake();
  });
  return {
    events,
    stop: () => abort.abort(),
    until: async (enough: (seen: readonly WatchEvent[]) => boolean): Promise<readonly WatchEvent[]> => {
      await soon(
        (async () => {
          while (failure === undefined && !enough(events)) {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          }
        })(),
      );
      if (failure !== undefined) throw failure;
      return events;
    },
  };
}

export async function nextEvents(watch: AsyncIterator<WatchBatch>): Promise<WatchBatch> {
  for (;;) {
    const { done, value } = await watch.next();
    if (done) throw new Error('the watch ended');
    if (value.kind !== 'progress') return value;
  }
}

export async function drain(watch: AsyncIterable<WatchBatch>): Promise<WatchBatch[]> {
  const batches: WatchBatch[] = [];
  for await (const batch of watch) if (batch.kind !== 'progress') batches.push(batch);
  return batches;
}

export function soon<T>(promise: Promise<T>, deadlineMs = DEADLINE_MS): Promise<T> {
  return withDeadline(systemClock, deadlineMs, 'the test', () => promise);
}

export async function waitUntil(condition: () => boolean | Promise<boolean>, deadlineMs = DEADLINE_MS): Promise<void> {
  const endMs = systemClock.nowMs() + deadlineMs;
  while (!(await condition())) {
    if (systemClock.nowMs() > endMs) throw new Error(`not within ${deadlineMs} ms: ${String(condition)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function rejection(promise: Promise<unknown>): Promise<BusbarError> {
  try {
    await promise;
  } catch (error) {
    return error as BusbarError;
  }
  throw new Error('expected a rejection');
}
