// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openSeal, SEAL_KEY_BYTES } from './seal.ts';

const seal = openSeal(Buffer.alloc(SEAL_KEY_BYTES, 1));
const other = openSeal(Buffer.alloc(SEAL_KEY_BYTES, 2));
const broken = expect.objectContaining({ reason: 'SEAL_BROKEN' });

describe('seal', () => {
  it('opens what it sealed, for the same context only, with the same key only', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.string(), fc.string(), (plain, context, elsewhere) => {
        const sealed = seal.seal(plain, context);
        expect(Buffer.from(seal.open(sealed, context))).toEqual(Buffer.from(plain));
        expect(() => other.open(sealed, context)).toThrow(broken);
        if (elsewhere !== context) expect(() => seal.open(sealed, elsewhere)).toThrow(broken);
      }),
    );
  });

  it('notices every changed byte and every cut', () => {
    const sealed = Buffer.from(seal.seal(Buffer.from('hunter2'), 'x').slice('sealed.1.'.length), 'base64url');
    for (let at = 0; at < sealed.length; at++) {
      const changed = Buffer.from(sealed);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(() => seal.open(`sealed.1.${changed.toString('base64url')}`, 'x')).toThrow(broken);
      expect(() => seal.open(`sealed.1.${sealed.subarray(0, at).toString('base64url')}`, 'x')).toThrow(broken);
    }
    for (const text of ['', 'hunter2', 'sealed.2.AAAA']) expect(() => seal.open(text, 'x')).toThrow(broken);
  });

  it('shows nothing of the text, and the same text differs between contexts', () => {
    const plain = Buffer.from('password: hunter2');
    expect(seal.seal(plain, 'a')).toBe(seal.seal(plain, 'a'));
    expect(seal.seal(plain, 'a')).not.toBe(seal.seal(plain, 'b'));
    expect(Buffer.from(seal.seal(plain, 'a').slice(9), 'base64url').includes('hunter2')).toBe(false);
  });

  it('makes digests that depend on key, context and text', () => {
    const plain = Buffer.from('hunter2');
    expect(seal.digest(plain, 'a')).toBe(seal.digest(plain, 'a'));
    const others = [other.digest(plain, 'a'), seal.digest(plain, 'b'), seal.digest(Buffer.from('hunter3'), 'a')];
    for (const each of others) expect(each).not.toBe(seal.digest(plain, 'a'));
    expect(seal.digest(Buffer.from('b'), 'a')).not.toBe(seal.digest(Buffer.from(''), 'ab'));
  });

  it('refuses a key of another size', () => {
    expect(() => openSeal(Buffer.alloc(16))).toThrow('a seal key has 32 bytes, not 16');
  });
});
