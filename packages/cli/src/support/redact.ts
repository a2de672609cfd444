// SPDX-License-Identifier: Apache-2.0
/** Takes from JSON what an allow-list names, and secrets out of the texts that stay. Pure. */

/** As allow.ts makes it, without its types: `true`, or fields. */
export type AllowTree = true | { readonly [field: string]: AllowTree | undefined };

/** Stands where something was, so that a supporter knows that there is something. */
export const LEFT_OUT = '(left out)';

export function redact(value: unknown, allow: AllowTree): unknown {
  if (Array.isArray(value)) return value.map((item: unknown) => redact(item, allow));
  if (typeof value === 'string') return allow === true ? scrub(value) : LEFT_OUT;
  if (typeof value !== 'object' || value === null) return allow === true ? value : LEFT_OUT;
  const entries = Object.entries(value).map(([name, inner]): [string, unknown] => {
    // A map with the user's keys: keys are words, values are single.
    if (allow === true) return [scrub(name), typeof inner === 'object' ? LEFT_OUT : redact(inner, true)];
    const deeper = Object.hasOwn(allow, name) ? allow[name] : undefined;
    return [name, deeper === undefined ? LEFT_OUT : redact(inner, deeper)];
  });
  return Object.fromEntries(entries);
}

/**
 * A second net: messages are written by many programs, and one may quote what it was given. Private keys in PEM, Ceph
 * keys, and what follows a word for a secret.
 */
const SECRETS: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|$)/g, LEFT_OUT],
  [/\bAQ[A-Za-z0-9+/]{36}==/g, LEFT_OUT],
  [
    /\b(pass(?:word|wd|phrase)?|secret|token|api[-_]?key|private[-_]?key)(["']?\s*[:=]\s*)("[^"]*"|'[^']*'|\S+)/gi,
    `$1$2${LEFT_OUT}`,
  ],
];

export function scrub(text: string): string {
  return SECRETS.reduce((now, [pattern, instead]) => now.replaceAll(pattern, instead), text);
}
