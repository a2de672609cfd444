// SPDX-License-Identifier: Apache-2.0
// The one line that lets a host into the cluster: where to ask, whom to believe, and a secret that works once.
import { createHash, timingSafeEqual } from 'node:crypto';
import { BusbarError } from '@busbar/core/errors';
import { z } from 'zod';

const PREFIX = 'busbar-join-1.';
export const JOIN_SECRET_BYTES = 32;
/** Nine controllers with long names are 1 KiB. */
const TOKEN_MAX_CHARACTERS = 4_096;

const base64url = (bytes: number) =>
  z
    .string()
    .refine(
      (text) =>
        Buffer.from(text, 'base64url').toString('base64url') === text &&
        Buffer.from(text, 'base64url').length === bytes,
    );
const schema = z.strictObject({
  endpoints: z
    .array(z.string().regex(/^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$/))
    .min(1)
    .max(9),
  pin: base64url(32),
  id: z.uuid(),
  secret: base64url(JOIN_SECRET_BYTES),
});

export interface JoinToken {
  /** HOST:PORT of the JSON edge of every controller. */
  readonly endpoints: readonly string[];
  /** spkiPin of the cluster's authority: whoever answers must have a certificate of it. */
  readonly pin: string;
  readonly id: string;
  /** 32 random bytes, base64url. */
  readonly secret: string;
}

export function encodeJoinToken(token: JoinToken): string {
  return PREFIX + Buffer.from(JSON.stringify(token)).toString('base64url');
}

/** Throws JOIN_TOKEN_UNREADABLE; never says what is in it. */
export function parseJoinToken(text: string): JoinToken {
  const line = text.trim();
  try {
    if (line.length > TOKEN_MAX_CHARACTERS || !line.startsWith(PREFIX)) throw new Error(`want one line "${PREFIX}…"`);
    const body = line.slice(PREFIX.length);
    if (!/^[A-Za-z0-9_-]+$/.test(body)) throw new Error('it has characters that do not belong there');
    return schema.parse(JSON.parse(Buffer.from(body, 'base64url').toString()));
  } catch {
    throw new BusbarError({
      kind: 'invalid',
      reason: 'JOIN_TOKEN_UNREADABLE',
      message: `it is no join token: want one line that begins with ${PREFIX}, whole`,
      hint: 'copy the line that "busbar host token create" printed again, or make a new token',
    });
  }
}

/** What the cluster keeps of a secret. 256 random bits need no salt and no slow hash. */
export function secretDigest(secret: string): string {
  return createHash('sha256').update('busbar join 1\0').update(secret).digest('hex');
}

/** In the same time whatever is wrong about it. */
export function secretMatches(secret: string, digest: string): boolean {
  const [given, kept] = [Buffer.from(secretDigest(secret)), Buffer.from(digest)];
  return given.length === kept.length && timingSafeEqual(given, kept);
}
