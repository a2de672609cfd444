// SPDX-License-Identifier: Apache-2.0
/**
 * The last line of defence against secrets in logs; the first is not to log whole requests. By the field's name, at any
 * depth, and by what is known from its text alone: a private key, wherever it stands.
 */
const SECRET_FIELDS: ReadonlySet<string> = new Set(
  [
    'userData',
    'networkConfig',
    'vendorData',
    'password',
    'passphrase',
    'secret',
    'token',
    'joinToken',
    'ticket',
    'privateKey',
    'keyPem',
    'keyring',
    'authorization',
    'cookie',
  ].map(plain),
);
const PRIVATE_KEY = /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g;
export const REDACTED = '[redacted]';
/** Log fields are flat but for an error and a list or two; what is deeper was not meant to be logged. */
const DEPTH = 6;

/** A copy without secrets. Errors become what `describeError` makes of them, and their texts are looked through as well. */
export function redacted(fields: object, describeError: (error: Error) => object): Record<string, unknown> {
  return copy(fields, describeError, 0) as Record<string, unknown>;
}

function copy(value: unknown, describeError: (error: Error) => object, depth: number): unknown {
  if (typeof value === 'string') return value.includes('PRIVATE KEY') ? value.replace(PRIVATE_KEY, REDACTED) : value;
  // JSON knows no bigint, and a log line must not fail for it.
  if (typeof value === 'bigint') return value.toString();
  if (value === null || typeof value !== 'object') return value;
  if (depth >= DEPTH) return '[deep]';
  if (value instanceof Error) return copy(describeError(value), describeError, depth);
  if (value instanceof Date) return value;
  if (value instanceof Uint8Array) return `[${value.length} bytes]`;
  if (Array.isArray(value)) return value.map((item) => copy(item, describeError, depth + 1));
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      key,
      isSecret(key, item) ? REDACTED : copy(item, describeError, depth + 1),
    ]),
  );
}

function isSecret(key: string, value: unknown): boolean {
  return value !== undefined && value !== null && value !== '' && SECRET_FIELDS.has(plain(key));
}

/** `user_data`, `user-data` and `userData` are one name. */
function plain(name: string): string {
  return name.replace(/[-_]/g, '').toLowerCase();
}
