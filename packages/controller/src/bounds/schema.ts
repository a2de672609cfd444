// SPDX-License-Identifier: Apache-2.0
import { z } from 'zod';

/**
 * What a schema lets through at most. Every text, list and map of a request is made by these, so that limits.ts can add up
 * how large a request may be; one without a bound does not start (limits.ts).
 */

/** A text of at most `max` UTF-16 units. Longer ones meet no other rule: a regular expression over megabytes takes long. */
export function text(max: number, rule: string): z.ZodString {
  return z.string().max(max, { error: rule, abort: true });
}

const ASCII = new WeakSet<RegExp>();

/** A text of ASCII characters that neither JSON nor anything else has to quote. */
export function word(max: number, pattern: RegExp, rule: string): z.ZodString {
  ASCII.add(pattern);
  return text(max, rule).regex(pattern, rule);
}

export type Bound =
  | { readonly kind: 'list'; readonly max: number; readonly element: z.ZodType }
  | { readonly kind: 'map'; readonly max: number; readonly key: z.ZodString; readonly value: z.ZodType }
  | { readonly kind: 'bytes'; readonly max: number }
  | { readonly kind: 'later'; readonly schema: z.ZodType };

/** By the first check of a schema, which it shares with all that are derived from it. */
const BOUNDS = new WeakMap<z.core.$ZodCheck, Bound>();

function bounded<T extends z.ZodType>(schema: T, bound: Bound): T {
  const [first] = schema._zod.def.checks ?? [];
  if (first === undefined) throw new Error('a bound needs a check to be known by');
  BOUNDS.set(first, bound);
  return schema;
}

/** The request is wrong enough: the rest is not looked at (api/validation.ts tells as many). */
const BAD_MAX = 20;

type Issues = z.core.$RefinementCtx;

/**
 * A list that is refused by its length alone, and at its twentieth bad element: zod would check each of two million elements, and
 * make an issue of each, before it counts them.
 */
export function list<T extends z.ZodType>(element: T, min: number, max: number, rule: string) {
  const schema = z
    .unknown()
    .refine((value) => Array.isArray(value) && value.length >= min && value.length <= max, { error: rule, abort: true })
    .superRefine((value, context) => {
      let bad = 0;
      for (const [index, each] of (value as unknown[]).entries()) {
        const { error } = element.safeParse(each);
        if (error === undefined) continue;
        add(context, index, error.issues);
        if (++bad === BAD_MAX) return;
      }
    });
  return bounded(schema, { kind: 'list', max, element }) as unknown as z.ZodType<z.output<T>[]>;
}

/** A map that is refused by the number of its keys alone, and at its twentieth bad entry. */
export function map<V extends z.ZodType>(key: z.ZodString, value: V, max: number, rule: string) {
  const schema = z
    .unknown()
    .refine((given) => typeof given === 'object' && given !== null && !hasMoreKeys(given, max), {
      error: rule,
      abort: true,
    })
    .superRefine((given, context) => {
      let bad = 0;
      for (const [name, each] of Object.entries(given as object)) {
        const wrongKey = key.safeParse(name).error;
        if (wrongKey !== undefined)
          context.addIssue({
            code: 'invalid_key',
            origin: 'record',
            issues: wrongKey.issues,
            path: [name],
            continue: false,
          } as never);
        const wrongValue = value.safeParse(each).error;
        if (wrongValue !== undefined) add(context, name, wrongValue.issues);
        if (wrongKey === undefined && wrongValue === undefined) continue;
        if (++bad === BAD_MAX) return;
      }
    });
  return bounded(schema, { kind: 'map', max, key, value }) as unknown as z.ZodType<Record<string, z.output<V>>>;
}

function add(context: Issues, at: PropertyKey, issues: readonly z.core.$ZodIssue[]): void {
  for (const issue of issues)
    context.addIssue({ ...issue, path: [at, ...issue.path], continue: OF_RULES.has(issue.code) } as never);
}

/** Of a value of the right type. After others, what looks at the whole is not asked (as zod has it): it may not find what it reads. */
const OF_RULES: ReadonlySet<string> = new Set(['custom', 'too_big', 'too_small', 'invalid_format', 'not_multiple_of']);

function hasMoreKeys(value: object, max: number): boolean {
  let keys = 0;
  for (const _ in value) if (++keys > max) return true;
  return false;
}

export function bytes(max: number, rule: string): z.ZodType<Uint8Array> {
  const schema = z.unknown().refine((value) => value instanceof Uint8Array && value.length <= max, rule);
  return bounded(schema, { kind: 'bytes', max }) as unknown as z.ZodType<Uint8Array>;
}

/** A part that the handler checks, because it is put together with something else first. The bounds are those of `schema`. */
export function checkedLater(schema: z.ZodType): z.ZodType<unknown> {
  return bounded(
    z.unknown().refine(() => true),
    { kind: 'later', schema },
  );
}

export const isOfAscii = (pattern: RegExp) => ASCII.has(pattern);

export function boundOf(schema: z.core.$ZodType): Bound | undefined {
  const [first] = schema._zod.def.checks ?? [];
  return first === undefined ? undefined : BOUNDS.get(first);
}
