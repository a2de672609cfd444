// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { FrameReader, frameOf } from './frames.ts';

it('gives back every message, in whatever pieces the bytes come', () => {
  const message = fc.uint8Array({ maxLength: 300 });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 8 }), fc.array(fc.integer({ min: 1, max: 700 })), (messages, cuts) => {
      const bytes = Buffer.concat(messages.map(frameOf));
      const reader = new FrameReader(300);
      const got: Uint8Array[] = [];
      let offset = 0;
      for (const length of [...cuts, bytes.length]) {
        for (const each of reader.take(new Uint8Array(bytes.subarray(offset, offset + length)))) got.push(each.slice());
        offset = Math.min(bytes.length, offset + length);
      }
      expect(got.map((each) => Buffer.from(each).toString('hex'))).toEqual(
        messages.map((each) => Buffer.from(each).toString('hex')),
      );
    }),
  );
});

it('refuses a message that is too long by its first two bytes, and to make one', () => {
  const reader = new FrameReader(300);
  expect([...reader.take(new Uint8Array([1]))]).toEqual([]);
  expect(() => [...reader.take(new Uint8Array([45]))]).toThrow('a frame of 301 bytes; at most 300 are taken');
  expect(() => frameOf(new Uint8Array(65_536))).toThrow('a frame of 65536 bytes');
});
