// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { errorRecord } from './error.ts';

const refused = Object.assign(new Error('connect ECONNREFUSED 10.0.0.1:2379'), { code: 'ECONNREFUSED' });
const unavailable = new BusbarError({
  kind: 'unavailable',
  reason: 'STORE_UNAVAILABLE',
  message: 'the cluster store did not answer',
  cause: refused,
});

describe('an error in a log line', () => {
  it('is the whole chain of its causes: each with name, message, kind, reason or code', () => {
    const outer = new BusbarError({ kind: 'timeout', reason: 'VIEW_BEHIND', message: 'behind', cause: unavailable });
    expect(errorRecord(outer)).toEqual({
      message: 'behind: the cluster store did not answer: connect ECONNREFUSED 10.0.0.1:2379',
      chain: [
        { name: 'BusbarError', kind: 'timeout', reason: 'VIEW_BEHIND', message: 'behind' },
        {
          name: 'BusbarError',
          kind: 'unavailable',
          reason: 'STORE_UNAVAILABLE',
          message: 'the cluster store did not answer',
        },
        { name: 'Error', code: 'ECONNREFUSED', message: 'connect ECONNREFUSED 10.0.0.1:2379' },
      ],
    });
  });

  it('has the stack of what nobody expected, and of nothing else', () => {
    const bug = new TypeError('x is not a function', { cause: unavailable });
    expect(errorRecord(bug).stack).toContain('error.test.ts');
    expect(errorRecord(bug).chain).toHaveLength(3);
    expect(errorRecord(unavailable).stack).toBeUndefined();
    const internal = new BusbarError({ kind: 'internal', reason: 'X', message: 'm' });
    expect(errorRecord(internal).stack).toContain('error.test.ts');
  });

  it('names what was tried beside each other', () => {
    const both = new AggregateError([refused, new Error('connect EHOSTUNREACH')], 'no address answered');
    expect(errorRecord(both).chain.map(({ message }) => message)).toEqual([
      'no address answered',
      'connect ECONNREFUSED 10.0.0.1:2379',
      'connect EHOSTUNREACH',
    ]);
  });

  it('ends: in a circle, and with whatever was thrown', () => {
    const circle = new Error('round');
    circle.cause = circle;
    expect(errorRecord(circle).chain).toHaveLength(8);
    expect(errorRecord(new Error('x'.repeat(100_000))).chain[0]?.message).toHaveLength(4_001);
    fc.assert(
      fc.property(fc.anything(), (thrown) => {
        const record = errorRecord(new Error('outer', { cause: thrown }));
        expect(record.chain[0]).toMatchObject({ name: 'Error', message: 'outer' });
        expect(() => JSON.stringify(record)).not.toThrow();
      }),
    );
  });
});
