// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { visibleText } from '@busbar/core/visible';
import { DEFAULT_POLICY, type PlacementPolicy } from '@busbar/scheduler/model';
import { StorageConfig } from '@busbar/storage/config';
import { LOG_LEVELS } from '@busbar/telemetry/logger';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { cut, show } from '../api/validation.ts';
import { AUDIT_POLICY, type AuditPolicy } from '../audit/policy.ts';

const absolutePath = z.string('an absolute path').regex(/^\//, 'an absolute path');
const hostName = z
  .string('a lower-case host name (DNS label)')
  .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'a lower-case host name (DNS label)');
const port = (value: string) => Number(value.slice(value.lastIndexOf(':') + 1)) <= 65_535;
const address = z
  .string('an address host:port')
  .regex(/^\S+:\d{1,5}$/, 'an address host:port')
  .refine(port, 'a port up to 65535');
const tls = z.strictObject(
  { ca: absolutePath, certificate: absolutePath, key: absolutePath },
  'ca, certificate and key',
);

const days = z.int('1 to 3650 days').min(1, '1 to 3650 days').max(3_650, '1 to 3650 days');

const schema = z.strictObject({
  cluster: hostName,
  host: hostName,
  listen: address,
  /** The API as JSON over HTTPS, with the same certificate; without it there is none. */
  edge: z.strictObject({ listen: address }, 'listen').optional(),
  tls,
  etcd: z.strictObject({
    endpoints: z
      .array(z.string().regex(/^https:\/\/\S+:\d{1,5}$/, 'an address https://host:port'))
      .min(1, 'at least one endpoint'),
    tls,
    /** What the members' --quota-backend-bytes says; without it, etcd's default of 2 GiB. */
    quotaBytes: z
      .int('whole bytes')
      .min(16 * 1024 ** 2, '16777216 to 137438953472 bytes')
      .max(128 * 1024 ** 3, '16777216 to 137438953472 bytes')
      .optional(),
    /** The pair of the member on this host, which etcd reads at each handshake: kept renewed like our own. */
    memberTls: tls.optional(),
    /** Where that member looks up who is revoked; kept up to date. Without it, revocation does not reach etcd. */
    revocationsFile: absolutePath.optional(),
  }),
  controllers: z.array(z.strictObject({ host: hostName, address })).min(1, 'every controller of the cluster'),
  /** spoolDir of rbd defaults to a folder below stateDir. */
  storage: z.looseObject({ driver: z.enum(['rbd', 'dir'], '"rbd" or "dir"') }),
  /** 32 random bytes, the same on every controller and nowhere else (mode 0600, or a systemd credential). */
  sealKeyFile: absolutePath,
  /** Written by `busbar cluster init`; read at every start, and needed once, by one controller. */
  authoritiesFile: absolutePath.optional(),
  stateDir: absolutePath,
  /** Metrics and health over HTTPS; without it there is no such listener. */
  metrics: z.strictObject({ listen: address }, 'listen, such as 10.77.0.11:7802').optional(),
  log: z.strictObject({ level: z.enum(LOG_LEVELS, LOG_LEVELS.join(', ')) }, 'level').optional(),
  /** How VMs are placed: the same on every controller, since any of them may lead. Each default is in scheduler/model.ts. */
  placement: z
    .strictObject(
      {
        hostReservedMemoryMib: z
          .int('whole MiB')
          .min(0, '0 or more MiB')
          .max(16 * 1024 ** 2, 'at most 16 TiB')
          .optional(),
        vmOverheadMib: z.int('whole MiB').min(0, '0 to 16384 MiB').max(16_384, '0 to 16384 MiB').optional(),
        vcpuOvercommit: z
          .number('a ratio from 1 to 64')
          .min(1, 'a ratio from 1 to 64')
          .max(64, 'a ratio from 1 to 64')
          .optional(),
        prefer: z.enum(['pack', 'spread'], 'pack or spread').optional(),
        survive: z
          .enum(['off', 'any-one-host', 'any-one-failure-domain'], 'off, any-one-host or any-one-failure-domain')
          .optional(),
      },
      'hostReservedMemoryMib, vmOverheadMib, vcpuOvercommit, prefer, survive',
    )
    .optional(),
  /** How much of the audit trail is kept: the same on every controller. Each default is in audit/policy.ts. */
  audit: z
    .strictObject(
      {
        keepDays: days.optional(),
        keepRefusedDays: days.optional(),
        records: z
          .int('1000 to 100000 records')
          .min(1_000, '1000 to 100000 records')
          // 58 MB in etcd, 90 to 175 MB in each controller.
          .max(100_000, '1000 to 100000 records')
          .optional(),
      },
      'keepDays, keepRefusedDays, records',
    )
    .optional(),
  /** Events go out to one of these, with the certificate of `tls`; the nearest first. Without it, they are only in the API. */
  nats: z
    .strictObject({
      servers: z
        .array(z.string().regex(/^tls:\/\/\S+:\d{1,5}$/, 'an address tls://host:port'))
        .min(1, 'at least one server'),
    })
    .optional(),
});

/** What the file says, and for the rest the defaults. */
export function placementPolicy(file: Pick<ControllerFile, 'placement'>): PlacementPolicy {
  const given = Object.entries(file.placement ?? {}).filter(([, value]) => value !== undefined);
  return { ...DEFAULT_POLICY, ...Object.fromEntries(given) };
}

export function auditPolicy(file: Pick<ControllerFile, 'audit'>): AuditPolicy {
  const given = Object.entries(file.audit ?? {}).filter(([, value]) => value !== undefined);
  return { ...AUDIT_POLICY, ...Object.fromEntries(given) };
}

export interface ControllerFile extends Omit<z.infer<typeof schema>, 'storage'> {
  readonly storage: StorageConfig;
}

/** Ours has some 2 KiB. For longer texts a YAML reader can be made to take minutes (60,000 keys: five). */
const MAX_CHARACTERS = 64 * 1024;
/** Enough to correct the file by. */
const MAX_PROBLEMS = 20;

/** Reads /etc/busbar/controller.yaml. Every mistake is told at once, with field, value and what would be right. */
export function parseControllerFile(text: string, fileName: string): ControllerFile {
  const fail = (problems: readonly string[], cause?: unknown) =>
    new BusbarError({
      kind: 'invalid',
      reason: 'CONFIG_INVALID',
      message: `${fileName}: ${problems.slice(0, MAX_PROBLEMS).join('; ')}`,
      hint: 'correct the file and start again',
      cause,
    });
  if (text.length > MAX_CHARACTERS) throw fail([`has ${text.length} characters, at most ${MAX_CHARACTERS} are read`]);
  let raw: unknown;
  try {
    raw = parseYaml(text, { logLevel: 'error' });
  } catch (error) {
    throw fail(['is not YAML'], error);
  }
  const result = schema.safeParse(raw);
  if (!result.success) throw fail(problemsOf(result.error, raw));
  const file = result.data;
  if (!file.controllers.some((member) => member.host === file.host)) {
    throw fail([
      `controllers: names ${file.controllers.map((m) => m.host).join(', ')}, expected "${file.host}" (host) among them`,
    ]);
  }
  const withSpool =
    file.storage.driver === 'rbd' ? { spoolDir: `${file.stateDir}/spool`, ...file.storage } : file.storage;
  const storage = StorageConfig.safeParse(withSpool);
  if (!storage.success) throw fail(problemsOf(storage.error, withSpool).map((problem) => `storage.${problem}`));
  return { ...file, storage: storage.data };
}

function problemsOf(error: z.ZodError, input: unknown): readonly string[] {
  return error.issues.flatMap((issue) => {
    // A key may be anything, also what a terminal would obey.
    const path = cut(visibleText(issue.path.map(String).join('.')), 160);
    if (issue.code === 'unrecognized_keys')
      return issue.keys.map(
        (key) => `${path === '' ? '' : `${path}.`}${cut(visibleText(key), 80)} is unknown, expected no such field`,
      );
    const value = issue.path.reduce<unknown>(
      (v, part) => (v as Record<PropertyKey, unknown> | undefined)?.[part],
      input,
    );
    return `${path || 'the file'} is ${show(value)}, expected ${issue.message}`;
  });
}
