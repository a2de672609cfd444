// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeJoinToken, type JoinToken, parseJoinToken, secretDigest, secretMatches } from './join-token.ts';

const token: JoinToken = {
  endpoints: ['10.0.0.1:7801', '[fd00::1]:7801', 'host3:7801'],
  pin: Buffer.alloc(32, 1).toString('base64url'),
  id: '01234567-89ab-4cde-8f01-23456789abcd',
  secret: Buffer.alloc(32, 2).toString('base64url'),
};

describe('a join token', () => {
  it('is one line and comes back as it was', () => {
    const text = encodeJoinToken(token);
    expect(text).toMatch(/^busbar-join-1\.[A-Za-z0-9_-]+$/);
    expect(parseJoinToken(`  ${text}\n`)).toEqual(token);
  });

  it.each<[string, Partial<JoinToken>]>([
    ['no endpoint', { endpoints: [] }],
    ['an endpoint without port', { endpoints: ['10.0.0.1'] }],
    ['an endpoint that is a URL', { endpoints: ['https://10.0.0.1:7801/x'] }],
    ['ten endpoints', { endpoints: Array.from({ length: 10 }, () => 'h:1') }],
    ['a short pin', { pin: 'AAAA' }],
    ['a pin in another alphabet', { pin: Buffer.alloc(32, 0xff).toString('base64') }],
    ['an id that is no UUID', { id: 'x' }],
    ['a short secret', { secret: Buffer.alloc(31).toString('base64url') }],
  ])('with %s is refused', (_name, part) => {
    expect(() => parseJoinToken(encodeJoinToken({ ...token, ...part }))).toThrow(BusbarError);
  });

  it('that is cut or changed is refused, and nothing of it is shown', () => {
    const text = encodeJoinToken(token);
    const refused = (input: string) => {
      try {
        parseJoinToken(input);
      } catch (error) {
        expect(error).toMatchObject({ kind: 'invalid', reason: 'JOIN_TOKEN_UNREADABLE' });
        expect((error as Error).message).toBe(
          'it is no join token: want one line that begins with busbar-join-1., whole',
        );
        return true;
      }
      return false;
    };
    for (let at = 0; at < text.length; at++) expect(refused(text.slice(0, at)), `cut at ${at}`).toBe(true);
    for (const bad of [`${text} ${text}`, text.replace('-1.', '-2.'), `${text}=`, `${text}${'A'.repeat(5_000)}`])
      expect(refused(bad)).toBe(true);
    fc.assert(fc.property(fc.string(), (tail) => refused(`busbar-join-1.${tail}`)));
  });
});

describe('a secret', () => {
  it('matches its own digest alone', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (a, b) => {
        expect(secretMatches(a, secretDigest(a))).toBe(true);
        expect(secretMatches(b, secretDigest(a))).toBe(a === b);
        expect(secretMatches(a, b)).toBe(false);
      }),
    );
    expect(secretMatches('', '')).toBe(false);
  });
});
