// SPDX-License-Identifier: Apache-2.0
import { BusbarError, type ErrorKind } from '@busbar/core/errors';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import fc from 'fast-check';
import { Status } from 'nice-grpc-common';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { page } from './pages.ts';
import { statusOf } from './status.ts';
import { innerName, labels, name, parse, reference, requestId, show } from './validation.ts';

const refused = (schema: z.ZodType, value: unknown) => !schema.safeParse(value).success;

describe('names', () => {
  it.each(['a', 'relay-1', 'x'.repeat(63), 'a0-9z'])('take %s', (value) => {
    expect(refused(name, value)).toBe(false);
  });

  it.each([
    ...['', '-a', 'a-', '1a', 'A', 'aB', 'a_b', 'a.b', 'a b', 'x'.repeat(64)],
    ...['a;rm -rf /', '$(id)', '`id`', 'a|b', 'a&b', 'a>b', "a'b", 'a"b', 'a\\b', 'a*', 'a?', '~a', '#a'],
    ...['<a>', 'a&amp;', ']]>', '../a', 'a/b', '/etc/passwd', '..', '.', 'a%2fb', 'a\n', 'a\u0000', 'a\r\nb', '\ta'],
    ...['é', 'ａ', 'а', 'a\u200b', 'a\u202e', '😀', 'a\ud800'],
    '01234567-89ab-4cde-8f01-23456789abcd',
    'abcdef01-89ab-4cde-8f01-23456789abcd',
  ])('refuse %j', (value) => {
    expect(refused(name, value)).toBe(true);
    if (value !== '' && value.length < 21) expect(refused(innerName, value)).toBe(true);
  });

  it('of disks and NICs are shorter', () => {
    expect(refused(innerName, 'x'.repeat(20))).toBe(false);
    expect(refused(innerName, 'x'.repeat(21))).toBe(true);
    expect(refused(reference, 'x'.repeat(253))).toBe(false);
    expect(refused(reference, 'x'.repeat(254))).toBe(true);
    expect(refused(requestId, 'x'.repeat(129))).toBe(true);
    expect(refused(requestId, 'a/b')).toBe(true);
  });
});

describe('violations', () => {
  const problems = (schema: z.ZodType, value: unknown) => {
    try {
      parse(schema, value);
    } catch (error) {
      return (error as BusbarError).fields;
    }
    return [];
  };

  it('of labels name the key and the rule', () => {
    expect(problems(z.object({ labels }), { labels: { 'a b': 'x' } })).toEqual([
      {
        field: 'labels.a b',
        problem: 'has the key "a b"',
        expected: "a key of 1 to 63 letters, digits, '-', '_', '.', '/'",
      },
    ]);
    expect(problems(z.object({ labels }), { labels: { a: 'x\n' } })).toEqual([
      { field: 'labels.a', problem: 'is "x\\n"', expected: 'text without control and invisible characters' },
    ]);
    const many = Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, '']));
    expect(problems(z.object({ labels }), { labels: many })[0]?.expected).toBe('at most 64 labels');
  });

  it('show any value, shortly', () => {
    const loop: unknown[] = [];
    loop.push(loop);
    expect(show({ size: 5n })).toBe('{"size":"5"}');
    expect(show(loop)).toBe('an unreadable object');
    expect(show(new Uint8Array(3))).toBe('3 bytes');
    expect(show(Symbol('x'))).toBe('symbol');
    expect(show(undefined)).toBe('missing');
    fc.assert(
      fc.property(fc.anything({ withBigInt: true, withNullPrototype: true }), (value) => {
        expect(show(value).length).toBeLessThanOrEqual(80);
      }),
    );
  });

  it('are told a bounded number at a time', () => {
    expect(
      problems(
        z.array(z.number('a number')),
        Array.from({ length: 1_000 }, () => 'x'),
      ).length,
    ).toBe(20);
  });
});

describe('status', () => {
  const CODES: Record<ErrorKind, Status> = {
    invalid: Status.INVALID_ARGUMENT,
    'not-found': Status.NOT_FOUND,
    'already-exists': Status.ALREADY_EXISTS,
    precondition: Status.FAILED_PRECONDITION,
    conflict: Status.ABORTED,
    exhausted: Status.RESOURCE_EXHAUSTED,
    unavailable: Status.UNAVAILABLE,
    timeout: Status.DEADLINE_EXCEEDED,
    unauthenticated: Status.UNAUTHENTICATED,
    forbidden: Status.PERMISSION_DENIED,
    cancelled: Status.CANCELLED,
    internal: Status.INTERNAL,
  };

  it.each(Object.entries(CODES))('%s', (kind, code) => {
    const error = new BusbarError({
      kind: kind as ErrorKind,
      reason: 'R',
      message: 'm',
      hint: 'h',
      cause: new Error('c'),
    });
    const status = statusOf(error);
    expect(status.code).toBe(code);
    expect(status.message).toBe('R: m: c');
    expect(ErrorInfo.decode(status.info)).toEqual({ reason: 'R', message: 'm: c', hint: 'h', fields: [] });
  });

  it('calls anything else a bug', () => {
    for (const thrown of [new TypeError('x'), 'text', null, undefined, { a: 1n }]) {
      expect(statusOf(thrown)).toMatchObject({ code: Status.INTERNAL });
    }
  });

  it('stays below what HTTP/2 stacks take, and well-formed, whatever is in it', () => {
    const word = fc.oneof(fc.string({ unit: 'binary', maxLength: 40 }), fc.constantFrom('😀', 'é', '\n', 'x'));
    const long = fc.tuple(word, fc.integer({ min: 0, max: 3_000 })).map(([text, times]) => text.repeat(times));
    const field = fc.record({ field: long, problem: long, expected: long });
    fc.assert(
      fc.property(long, long, long, fc.array(field, { maxLength: 30 }), (reason, message, hint, fields) => {
        const status = statusOf(new BusbarError({ kind: 'invalid', reason, message, hint, fields }));
        expect(status.info.length).toBeLessThanOrEqual(4_000);
        expect(encodeURI(status.message.toWellFormed()).length).toBeLessThanOrEqual(500 * 9);
        ErrorInfo.decode(status.info);
      }),
      { numRuns: 60 },
    );
    // Megabytes of text: seconds on a quiet machine. A limit for hanging, not a measure.
  }, 60_000);
});

describe('pages', () => {
  it('neither skip nor repeat what is there all the time, however the list changes', () => {
    const names = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 4 }), { maxLength: 40 });
    fc.assert(
      fc.property(
        names,
        fc.infiniteStream(names),
        fc.integer({ min: 1, max: 7 }),
        fc.boolean(),
        (always, others, pageSize, descending) => {
          const got: string[] = [];
          let pageToken = '';
          for (let round = 0; round < 500; round++) {
            const now = [...new Set([...always, ...(others.next().value ?? [])])].sort((a, b) => (a < b ? -1 : 1));
            const list = (descending ? now.toReversed() : now) as readonly string[];
            const { items, nextPageToken } = page(list, (item) => item, { pageSize, pageToken }, descending);
            expect(items.length).toBeLessThanOrEqual(pageSize);
            got.push(...items);
            pageToken = nextPageToken;
            if (pageToken === '') break;
          }
          expect(pageToken).toBe('');
          expect(new Set(got).size).toBe(got.length);
          for (const item of always) expect(got).toContain(item);
          // Text order is code unit order on both sides.
          expect(got).toEqual(descending ? got.toSorted().reverse() : got.toSorted());
        },
      ),
    );
  });

  it('refuse a token that is none', () => {
    for (const pageToken of ['x', 'AAAA', '!!', Buffer.from('j:1').toString('base64url')]) {
      expect(() => page([], String, { pageSize: 0, pageToken })).toThrow(/nextPageToken/);
    }
  });
});
