// SPDX-License-Identifier: Apache-2.0
/** The order of --sort: by one column or path, "-" before it for the reverse; equal ones keep the order of the list. */
import { usageError } from '../cli/exit.ts';
import { orderOf } from './filter.ts';
import { hint } from './listing.ts';
import type { Shown } from './resource.ts';
import { type Scalar, subjectFor, UnknownSubject } from './subject.ts';

/** host2 before host10. */
const NATURAL = new Intl.Collator('en', { numeric: true });

export async function compileSort<T>(resource: Shown<T>, text: string): Promise<(a: T, b: T, now: Date) => number> {
  const sign = text.startsWith('-') ? -1 : 1;
  const subject = await subjectFor(resource, sign < 0 ? text.slice(1) : text).catch((error: unknown) => {
    if (!(error instanceof UnknownSubject)) throw error;
    throw usageError(`--sort ${text} is not possible`, error.message, hint(error.expected));
  });
  // The older is the larger age, and the earlier date.
  const direction = subject.kind === 'age' ? -sign : sign;
  return (a, b, now) => {
    const [left] = subject.of(a, now);
    const [right] = subject.of(b, now);
    // What has no value comes last, in either direction.
    if (left === undefined || right === undefined) return Number(left === undefined) - Number(right === undefined);
    return direction * order(left, right);
  };
}

function order(a: Scalar, b: Scalar): number {
  return typeof a === 'string' && typeof b === 'string' ? NATURAL.compare(a, b) : orderOf(a, b);
}
