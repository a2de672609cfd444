// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Compare, prefixRange, TxnRequest, WatchRequest, WatchResponse } from './messages.ts';
import { bool, bytes, int32, int64, message, optional, repeated, text, uint64 } from './wire.ts';

const Inner = message({ name: text(1), n: int64(2) });
const Outer = message({
  i: int32(1),
  u: uint64(2),
  b: bool(3),
  raw: bytes(4),
  inner: optional(5, Inner),
  list: repeated(64, Inner),
});

const inner = fc.record({
  name: fc.string({ unit: 'binary' }),
  n: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
});

test('what is written is read', () => {
  const outer = fc.record({
    i: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    u: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    b: fc.boolean(),
    raw: fc.uint8Array(),
    inner: fc.option(inner, { nil: undefined }),
    list: fc.array(inner),
  });
  fc.assert(
    fc.property(outer, (value) => {
      const read = Outer.decode(Outer.encode(value));
      expect({ ...read, raw: [...read.raw] }).toEqual({ ...value, raw: [...value.raw] });
    }),
  );
});

test('messages do not share their lists', () => {
  const one = Outer.encode({ list: [{ name: 'a' }] });
  expect(Outer.decode(one).list).toHaveLength(1);
  expect(Outer.decode(one).list).toHaveLength(1);
});

test('unknown fields are skipped, garbage throws and never hangs', () => {
  expect(Inner.decode(Outer.encode({ i: 7, raw: new Uint8Array([1]), list: [{ name: 'x' }] }))).toEqual({
    name: '',
    n: 0n,
  });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (garbage) => {
      try {
        WatchResponse.decode(garbage);
      } catch (error) {
        expect(error).toBeInstanceOf(Error);
      }
    }),
  );
});

test('the bytes are those of etcd', () => {
  const hex = (value: Buffer) => value.toString('hex');
  // compare { target: MOD key: "k" mod_revision: 5 } success { request_put { key: "k" value: "v" lease: 300 } }
  expect(hex(Compare.encode({ target: 2, key: 'k', modRevision: 5n }))).toBe('10021a016b3005');
  const put = { put: { key: 'k', value: 'v', lease: 300n } };
  expect(hex(TxnRequest.encode({ compare: [{ target: 2, key: 'k', modRevision: 5n }], success: [put] }))).toBe(
    `0a07${'10021a016b3005'}120b1209${'0a016b12017618ac02'}`,
  );
  // An empty message inside a oneof is still written.
  expect(hex(WatchRequest.encode({ progress: {} }))).toBe('1a00');
});

test('a prefix ends where its last byte is raised', () => {
  const range = (prefix: string) => {
    const { key, rangeEnd } = prefixRange(prefix);
    return [Buffer.from(key).toString('hex'), Buffer.from(rangeEnd).toString('hex')];
  };
  expect(range('a/')).toEqual(['612f', '6130']);
  expect(range('\u00bf')).toEqual(['c2bf', 'c2c0']);
  expect(range('')).toEqual(['00', '00']);
});
