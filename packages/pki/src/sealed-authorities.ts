// SPDX-License-Identifier: Apache-2.0
// The file with which `busbar cluster init` hands the authorities to the first controller: their keys sealed, and what
// was issued before there was a cluster to record it.
import { BusbarError } from '@busbar/core/errors';
import { z } from 'zod';
import type { KeyPairPem } from './authority.ts';
import { AUTHORITIES, type AuthorityName, type IssuedCertificate, PURPOSES } from './purpose.ts';
import { ROLES } from './role.ts';
import { openSeal } from './seal.ts';

const time = z.iso.datetime('a time as in 2026-01-31T12:00:00.000Z').transform((text) => new Date(text));
/** What a file from before ADR 0053 also has. It is read and left out: nobody takes such certificates any more. */
const RETIRED = 'libvirt';
const RETIRED_AUTHORITY = 'libvirt-ca';
const text = z.string('text').max(16_384, 'at most 16 KiB');
const schema = z.strictObject({
  version: z.literal(1, '1'),
  cluster: text,
  createTime: time,
  authorities: z
    .array(
      z.strictObject({
        name: z.enum([...AUTHORITIES, RETIRED_AUTHORITY], AUTHORITIES.join(', ')),
        certificatePem: text,
        sealedKey: text,
      }),
    )
    .transform((list) => list.flatMap(({ name, ...rest }) => (name === RETIRED_AUTHORITY ? [] : [{ name, ...rest }])))
    .refine((list) => list.length === AUTHORITIES.length, `the ${AUTHORITIES.length} authorities`)
    .refine((list) => new Set(list.map((each) => each.name)).size === list.length, 'each authority once'),
  certificates: z
    .array(
      z.strictObject({
        serial: z.string().regex(/^[0-9a-f]{1,64}$/, 'lower-case hexadecimal digits'),
        purpose: z.enum([...PURPOSES, RETIRED], PURPOSES.join(', ')),
        subject: text,
        role: z.union([z.enum(ROLES), z.literal('')], `${ROLES.join(', ')} or empty`),
        dns: z.array(text).max(64, 'at most 64'),
        ips: z.array(text).max(64, 'at most 64'),
        notBefore: time,
        notAfter: time,
        certificatePem: text,
      }),
    )
    .max(1_000, 'at most 1000 certificates')
    .transform((list) => list.flatMap(({ purpose, ...rest }) => (purpose === RETIRED ? [] : [{ purpose, ...rest }]))),
});

export interface SealedAuthorities {
  readonly cluster: string;
  readonly createTime: Date;
  readonly authorities: readonly {
    readonly name: AuthorityName;
    readonly certificatePem: string;
    readonly sealedKey: string;
  }[];
  readonly certificates: readonly IssuedCertificate[];
}

/** For `Seal`: what is sealed, and whose. The record in the cluster store has the same, so that it is taken over as it is. */
export function authorityContext(name: AuthorityName): string {
  return `authority/${name}`;
}

export function sealAuthorities(from: {
  readonly cluster: string;
  readonly createTime: Date;
  readonly pairs: ReadonlyMap<AuthorityName, KeyPairPem>;
  readonly issued: readonly IssuedCertificate[];
  readonly sealKey: Uint8Array;
}): SealedAuthorities {
  const seal = openSeal(from.sealKey);
  const authorities = [...from.pairs].map(([name, pair]) => ({
    name,
    certificatePem: pair.certificatePem,
    sealedKey: seal.seal(Buffer.from(pair.keyPem), authorityContext(name)),
  }));
  return { cluster: from.cluster, createTime: from.createTime, authorities, certificates: [...from.issued] };
}

export function encodeSealedAuthorities(sealed: SealedAuthorities): string {
  return `${JSON.stringify({ version: 1, ...sealed }, null, 2)}\n`;
}

/** Throws AUTHORITIES_FILE_INVALID with the fields that are wrong. Keys are not opened here. */
export function parseSealedAuthorities(content: string, fileName: string): SealedAuthorities {
  const fail = (why: string, cause?: unknown) =>
    new BusbarError({
      kind: 'invalid',
      reason: 'AUTHORITIES_FILE_INVALID',
      message: `${fileName}: ${why}`,
      hint: 'use the file as "busbar cluster init" wrote it; a cluster that has run once does not need it',
      cause,
    });
  let raw: unknown;
  try {
    raw = JSON.parse(content);
  } catch (error) {
    throw fail('is not JSON', error);
  }
  const result = schema.safeParse(raw);
  if (!result.success) {
    // Without the values: what is wrong may be a key in plain text.
    throw fail(
      result.error.issues.map((issue) => `${issue.path.join('.') || 'the file'}: expected ${issue.message}`).join('; '),
    );
  }
  const { version: _, ...sealed } = result.data;
  return sealed;
}
