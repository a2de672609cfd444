// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { Revision } from '@busbar/core/ids';
import { status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Compare, Transaction, Write } from '../cluster-store.ts';
import { MemoryTruth } from '../memory-truth.ts';
import { failureKind, mayRepeat } from './failure.ts';

test.each([
  [status.UNAVAILABLE, 'etcdserver: no leader', 'not-applied'],
  [status.UNAVAILABLE, 'No connection established. Last error: connect ECONNREFUSED', 'not-applied'],
  [status.UNKNOWN, 'raft proposal dropped', 'not-applied'],
  [status.RESOURCE_EXHAUSTED, 'etcdserver: too many requests', 'not-applied'],
  [status.UNAVAILABLE, 'etcdserver: request timed out', 'unknown'],
  [status.UNAVAILABLE, 'etcdserver: request timed out, possibly due to previous leader failure', 'unknown'],
  [status.UNAVAILABLE, 'etcdserver: leader changed', 'unknown'],
  [status.UNAVAILABLE, 'Connection dropped', 'unknown'],
  [status.CANCELLED, 'Cancelled on client', 'unknown'],
  [status.NOT_FOUND, 'etcdserver: requested lease not found', 'lease-gone'],
  [status.OUT_OF_RANGE, 'etcdserver: mvcc: required revision has been compacted', 'compacted'],
  [status.RESOURCE_EXHAUSTED, 'etcdserver: mvcc: database space exceeded', 'no-space'],
  [status.RESOURCE_EXHAUSTED, 'Received message larger than max (5 vs. 4)', 'answer-too-large'],
  [status.INVALID_ARGUMENT, 'etcdserver: duplicate key given in txn request', 'invalid'],
  [status.PERMISSION_DENIED, 'etcdserver: permission denied', 'forbidden'],
  [status.INTERNAL, 'anything else', 'unknown'],
] as const)('code %i "%s" means %s', (code, details, kind) => {
  expect(failureKind(code, details)).toBe(kind);
});

test('a transaction that may be repeated is never applied twice, whatever happens in between', () => {
  const key = fc.constantFrom('a', 'b', 'c');
  const write: fc.Arbitrary<Write> = fc.oneof(
    key.map((k): Write => ({ kind: 'put', key: k, value: '' })),
    key.map((k): Write => ({ kind: 'delete', key: k })),
  );
  const writes = fc.uniqueArray(write, { selector: (item) => item.key, minLength: 1 });
  const revision = fc.bigInt({ min: 0n, max: 4n }).map((n) => n as Revision);
  const compare: fc.Arbitrary<Compare[]> = fc.array(
    fc
      .tuple(fc.constantFrom('mod', 'create'), key, revision)
      .map(([target, k, r]) => ({ target, key: k, revision: r })),
    { maxLength: 2 },
  );
  let repeatable = 0;
  fc.assert(
    fc.property(
      fc.array(writes, { maxLength: 4 }),
      fc.record({ compare, writes }),
      fc.array(writes, { maxLength: 4 }),
      (before, transaction: Transaction, between) => {
        if (!mayRepeat(transaction)) return;
        const truth = new MemoryTruth({ clock: new VirtualClock() });
        for (const step of before) truth.txn({ compare: [], writes: step });
        if (!truth.txn(transaction).succeeded) return;
        repeatable++;
        for (const step of between) truth.txn({ compare: [], writes: step });
        expect(truth.txn(transaction).succeeded).toBe(false);
      },
    ),
    { numRuns: 2_000 },
  );
  expect(repeatable).toBeGreaterThan(10);
});

test('a guard is an existing revision of a key that is changed', () => {
  const put: Write = { kind: 'put', key: 'a', value: '' };
  const remove: Write = { kind: 'delete', key: 'a' };
  const verdict = (target: Compare['target'], revision: bigint, write: Write, key = 'a') =>
    mayRepeat({ compare: [{ target, key, revision: revision as Revision }], writes: [write] });
  expect(verdict('mod', 5n, put)).toBe(true);
  expect(verdict('mod', 5n, remove)).toBe(true);
  expect(verdict('create', 5n, remove)).toBe(true);
  expect(verdict('create', 5n, put)).toBe(false);
  expect(verdict('mod', 0n, put)).toBe(false);
  expect(verdict('mod', 5n, put, 'b')).toBe(false);
});
