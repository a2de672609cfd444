// SPDX-License-Identifier: Apache-2.0
import { isIP } from 'node:net';
import { BusbarError, type FieldViolation } from '@busbar/core/errors';
import { visible, visibleText } from '@busbar/core/visible';
import { LOG_LEVELS } from '@busbar/telemetry/logger';
import { parse } from 'yaml';
import { z } from 'zod';
import { PretendTopology } from '../inventory/pretend.ts';
import { UidPoolSchema } from './uid-pool.ts';

// Every field says what would be right, because the reader of the message has this file open and nothing else.
const WANT = {
  name: 'a lower-case DNS label of at most 63 characters, such as "host1"',
  ip: 'an IP address, such as 10.77.0.11',
  address: 'HOST:PORT or [IPv6]:PORT, such as 10.77.0.11:7800',
  path: 'an absolute path, such as /etc/busbar/agent.key',
  runDir: 'an absolute path of at most 62 characters (names of sockets below it are limited), such as /run/busbar',
  monitor: 'the address of a Ceph monitor, such as 10.77.1.11 or 10.77.1.11:6789',
  word: 'a non-empty word without spaces',
  level: LOG_LEVELS.join(', '),
  uri: 'a libvirt URI, such as qemu:///system',
} as const;

const name = z.string(WANT.name).regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, WANT.name);
const ip = z.string(WANT.ip).refine((text) => isIP(text) !== 0, WANT.ip);
const address = z.string(WANT.address).refine(isAddress, WANT.address);
const path = z.string(WANT.path).regex(/^\/\S/, WANT.path);
const word = z.string(WANT.word).regex(/^\S+$/, WANT.word);
const monitor = z.string(WANT.monitor).refine((text) => isIP(text) !== 0 || isAddress(text), WANT.monitor);

const storage = z.discriminatedUnion(
  'driver',
  [
    z
      .strictObject({
        driver: z.literal('rbd'),
        pool: word,
        monitors: z.array(monitor, 'a list of monitor addresses').min(1, 'at least one monitor address'),
        /** A key that opens every disk of the pool, for controllers with `identities: shared`; else every start brings its own. */
        user: word.optional(),
        keyFile: path.optional(),
      })
      .refine((rbd) => (rbd.user === undefined) === (rbd.keyFile === undefined), {
        error: 'user and keyFile together, or neither (then controllers need storage.identities: vm)',
        path: ['keyFile'],
      }),
    z.strictObject({ driver: z.literal('dir'), path }),
  ],
  'driver: rbd (with pool, monitors) or driver: dir (with path)',
);

const common = {
  cluster: name,
  host: name,
  managementAddress: ip,
  storageAddress: ip,
  controllers: z
    .array(z.strictObject({ host: name, address }, 'host and address of a controller'), 'a list of {host, address}')
    .min(1, 'at least one controller')
    .refine((list) => isUnique(list.map((entry) => entry.host)), 'each controller host once')
    .refine((list) => isUnique(list.map((entry) => entry.address)), 'each controller address once'),
  tls: z.strictObject({ ca: path, certificate: path, key: path }, 'paths of PEM files: ca, certificate, key'),
  stateDir: path,
  runDir: path.max(62, WANT.runDir),
  logDir: path,
  /** Metrics and health over HTTPS; without it there is no such listener. */
  metrics: z.strictObject({ listen: address }, 'listen, such as 10.77.0.11:7803').optional(),
  log: z.strictObject({ level: z.enum(LOG_LEVELS, WANT.level) }, 'level').optional(),
};

const schema = z.discriminatedUnion(
  'role',
  [
    z.strictObject({
      ...common,
      role: z.literal('hypervisor'),
      libvirt: z.strictObject(
        {
          uri: z.string(WANT.uri).regex(/^[a-z+]+:\/\//, WANT.uri),
          /** Retired (ADR 0053), and taken so that an upgrade does not cost a host its lease; see `retiredFields`. */
          pki: path.optional(),
          /** User ids for QEMUs: each runs as one that nobody else has. [a hundred million from 1,900,000,000] */
          uidPool: UidPoolSchema.optional(),
        },
        'uri, such as qemu:///system',
      ),
      storage,
      /** For labs only: see inventory/pretend.ts. */
      pretendTopology: PretendTopology.optional(),
    }),
    z.strictObject({ ...common, role: z.literal('witness') }),
  ],
  'role: hypervisor or role: witness',
);

/** agent.yaml, checked. A witness runs no VMs, so it has neither `libvirt` nor `storage`. */
export type AgentFile = z.infer<typeof schema>;
export type HypervisorFile = Extract<AgentFile, { role: 'hypervisor' }>;

/** Ours has some 2 KiB. For longer texts a YAML reader can be made to take minutes (60,000 keys: five). */
const MAX_CHARACTERS = 64 * 1024;
/** Enough to correct the file by. */
const MAX_VIOLATIONS = 20;
const MAX_SHOWN = 200;

/** Parses the text of agent.yaml; throws a BusbarError that names every wrong field, its value and what would be right. */
export function parseAgentFile(text: string, fileName: string): AgentFile {
  if (text.length > MAX_CHARACTERS) {
    throw invalid(
      `${fileName} is not usable: it has ${text.length} characters, at most ${MAX_CHARACTERS} are read`,
      [],
    );
  }
  let raw: unknown;
  try {
    raw = parse(text, { logLevel: 'error' });
  } catch (cause) {
    throw invalid(`${fileName} is not YAML`, [], cause);
  }
  const result = schema.safeParse(raw);
  if (result.success) return result.data;
  const fields = result.error.issues.flatMap((issue) => violations(issue, raw)).slice(0, MAX_VIOLATIONS);
  const lines = fields.map(({ field, problem, expected }) => `  ${field} ${problem}; right is: ${expected}`);
  throw invalid(`${fileName} is not usable:\n${lines.join('\n')}`, fields);
}

/** What stands in the file and does nothing any more: for a warning, each with what to do. */
export function retiredFields(file: AgentFile): readonly string[] {
  if (file.role !== 'hypervisor' || file.libvirt.pki === undefined) return [];
  const dir = file.libvirt.pki;
  return [
    `libvirt.pki is no longer used: libvirtd must not listen on a network (whoever it lets in is root here). ` +
      `Set listen_tls = 0 in libvirtd.conf, start libvirtd without --listen, delete ${dir} and this field`,
  ];
}

function violations(issue: z.core.$ZodIssue, raw: unknown): FieldViolation[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      field: fieldName([...issue.path, key]),
      problem: 'is not a known field',
      expected: 'leave it out, or correct its spelling',
    }));
  }
  const value = issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], raw);
  const problem = value === undefined ? 'is missing' : `is ${cut(visible(value) ?? '')}`;
  return [{ field: fieldName(issue.path), problem, expected: issue.message }];
}

function fieldName(parts: readonly PropertyKey[]): string {
  const text = parts.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('');
  // A key may be anything, also what a terminal would obey.
  return cut(visibleText(text.replace(/^\./, '') || 'the file'));
}

function cut(text: string): string {
  return text.length <= MAX_SHOWN ? text : `${text.slice(0, MAX_SHOWN)}…`;
}

function invalid(message: string, fields: readonly FieldViolation[], cause?: unknown): BusbarError {
  return new BusbarError({ kind: 'invalid', reason: 'AGENT_CONFIG_INVALID', message, fields, cause });
}

function isAddress(text: string): boolean {
  const match = /^(?:\[([^\]]+)\]|([^:\s[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port < 1 || port > 65_535) return false;
  return match[1] === undefined || isIP(match[1]) === 6;
}

function isUnique(values: readonly string[]): boolean {
  return new Set(values).size === values.length;
}
