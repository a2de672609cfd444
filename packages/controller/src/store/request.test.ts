// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BatchQueue } from './batch-queue.ts';
import type { WatchBatch } from './cluster-store.ts';
import { LeaseClaim } from './lease-claim.ts';
import { compareKeys } from './request.ts';

test('compareKeys orders as UTF-8 bytes do', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (a, b) => {
      expect(Math.sign(compareKeys(a, b))).toBe(Buffer.compare(Buffer.from(a), Buffer.from(b)));
    }),
  );
});

test('a lease claim counts from the latest acknowledged sending and never revives', () => {
  const claim = new LeaseClaim(3_000);
  expect(claim.validUntilMs()).toBe(Number.NEGATIVE_INFINITY);
  claim.acknowledge(1_000);
  claim.acknowledge(500);
  expect(claim.validUntilMs()).toBe(3_700);
  claim.end();
  claim.acknowledge(9_000);
  expect(claim.validUntilMs()).toBe(Number.NEGATIVE_INFINITY);
});

test('a batch queue keeps order, merges progress, and ends as told', async () => {
  const take = async (queue: BatchQueue) => {
    const taken: WatchBatch['kind'][] = [];
    for await (const batch of queue.drain()) taken.push(batch.kind);
    return taken;
  };
  const events = (count: number): WatchBatch => ({
    kind: 'events',
    revision: 1n as never,
    events: Array.from({ length: count }, () => ({ kind: 'delete', key: 'k', modRevision: 1n as never })),
  });
  const progress: WatchBatch = { kind: 'progress', revision: 1n as never };

  const queue = new BatchQueue(3);
  for (const batch of [events(9), progress, progress] as const) queue.push(batch);
  queue.push({ kind: 'compacted' });
  queue.push(events(1));
  expect(await take(queue)).toEqual(['events', 'progress', 'compacted']);

  const slow = new BatchQueue(3);
  slow.push(events(2));
  slow.push(events(2));
  expect(await take(slow)).toEqual(['compacted']);

  const aborted = new BatchQueue(3);
  aborted.push(events(2));
  aborted.abort();
  aborted.fail(new Error('too late'));
  expect(await take(aborted)).toEqual([]);

  const failed = new BatchQueue(3);
  failed.push(events(2));
  failed.fail(new Error('broken'));
  await expect(take(failed)).rejects.toThrow('broken');
});
