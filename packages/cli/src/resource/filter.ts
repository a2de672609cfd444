// SPDX-License-Identifier: Apache-2.0
/**
 * The grammar of --filter:
 *
 *   filter = term {"," term}          all terms must hold
 *   term   = name op value            name: a column, or a path such as spec.cpu.vcpus or labels.plant
 *   op     = "=" | "!=" | "~" | "<" | "<=" | ">" | ">="     "~" means contains, whatever the case
 *   value  = text without ","  |  '"' text '"'              in quotes \" is a quote and \\ a backslash
 *
 * Sizes and durations are written as everywhere (1GiB, 30s), ages as tables show them (5m, 2h, 3d).
 */
import { ok, type Result, refuse } from '@busbar/core/result';
import { usageError } from '../cli/exit.ts';
import { nearest } from '../manifest/suggest.ts';
import { parseBytes, parseMs } from '../manifest/units.ts';
import type { Shown } from './resource.ts';
import { type Scalar, type Subject, type SubjectKind, subjectFor, UnknownSubject } from './subject.ts';

export const OPERATORS = ['!=', '<=', '>=', '=', '<', '>', '~'] as const;
export type Operator = (typeof OPERATORS)[number];

export interface Term {
  readonly name: string;
  readonly op: Operator;
  readonly value: string;
  /** Of the term's first character in the filter, from 1. */
  readonly position: number;
  readonly text: string;
}

export interface FilterProblem {
  readonly position: number;
  readonly term: string;
  readonly problem: string;
  readonly expected: string;
}

/** Longer than anybody types; a file given by mistake ends here. */
const MAX_CHARACTERS = 4096;
const MAX_TERMS = 32;
const EXAMPLE = 'terms such as phase=running,memory>1GiB';

export function parseFilter(text: string): Result<readonly Term[], FilterProblem> {
  if (text.length > MAX_CHARACTERS) {
    return refuse({
      position: 1,
      term: '',
      problem: `it has ${text.length} characters`,
      expected: `at most ${MAX_CHARACTERS}`,
    });
  }
  const terms: Term[] = [];
  let at = 0;
  for (;;) {
    while (text[at] === ' ') at++;
    const begin = at;
    const problem = (what: string, expected: string, position = begin) =>
      refuse({ position: position + 1, term: text.slice(begin).split(',')[0]?.trim() ?? '', problem: what, expected });
    const name = /^[^=!<>~,"]*/.exec(text.slice(at))?.[0] ?? '';
    at += name.length;
    const op = OPERATORS.find((candidate) => text.startsWith(candidate, at));
    if (name.trim() === '') {
      const end = at >= text.length;
      return problem(end ? 'a term is missing' : 'the name is missing', end ? EXAMPLE : 'a column or a path before it');
    }
    if (op === undefined) return problem('it has no operator', `NAME followed by one of ${OPERATORS.join(' ')}`);
    at += op.length;
    while (text[at] === ' ') at++;
    const quoted = text[at] === '"' ? /^"((?:[^"\\]|\\["\\])*)"/.exec(text.slice(at)) : null;
    if (text[at] === '"' && quoted === null)
      return problem('the quote is not closed', 'a second " after the value', at);
    const value = quoted === null ? (/^[^,]*/.exec(text.slice(at))?.[0] ?? '') : (quoted[1] ?? '');
    at += quoted === null ? value.length : (quoted[0]?.length ?? 0);
    const unescaped = quoted === null ? value.trim() : value.replaceAll(/\\(["\\])/g, '$1');
    terms.push({ name: name.trim(), op, value: unescaped, position: begin + 1, text: text.slice(begin, at).trim() });
    while (text[at] === ' ') at++;
    if (at >= text.length) return ok(terms);
    if (text[at] !== ',') return problem('something follows the value', 'a comma before the next term', at);
    if (terms.length >= MAX_TERMS) return problem(`it has more than ${MAX_TERMS} terms`, 'fewer terms', at);
    at++;
  }
}

export type Predicate<T> = (item: T, now: Date) => boolean;

export async function compileFilter<T>(resource: Shown<T>, text: string, flag: string): Promise<Predicate<T>> {
  const terms = parseFilter(text);
  if (!terms.ok) throw filterError(flag, terms.error);
  const tests: Predicate<T>[] = [];
  for (const term of terms.value) {
    const wrong = (problem: string, expected: string) =>
      filterError(flag, { position: term.position, term: term.text, problem, expected });
    const subject = await subjectFor(resource, term.name).catch((error: unknown) => {
      throw error instanceof UnknownSubject ? wrong(error.message, error.expected) : error;
    });
    const test = compare(subject, term);
    if (!test.ok) throw wrong(test.error.problem, test.error.expected);
    tests.push(test.value);
  }
  return (item, now) => tests.every((test) => test(item, now));
}

function filterError(flag: string, { position, term, problem, expected }: FilterProblem): Error {
  const where = term === '' ? '' : `${JSON.stringify(term)}: `;
  return usageError(
    `${flag} is not understood at character ${position}`,
    `${where}${problem}`,
    expected.startsWith('did you mean') ? expected : `write ${expected}`,
  );
}

interface Wrong {
  readonly problem: string;
  readonly expected: string;
}

/** Kinds that have an order. */
const ORDERED: ReadonlySet<SubjectKind> = new Set(['number', 'bytes', 'ms', 'age', 'time']);
const CALLED: Readonly<Record<SubjectKind, string>> = {
  text: 'text',
  words: 'one of a few words',
  number: 'a number',
  bytes: 'a size',
  ms: 'a duration',
  age: 'an age',
  time: 'a time',
  bool: 'true or false',
};

function compare<T>(subject: Subject<T>, { name, op, value }: Term): Result<Predicate<T>, Wrong> {
  const { kind } = subject;
  const allowed = ORDERED.has(kind)
    ? OPERATORS.filter((o) => o !== '~')
    : kind === 'bool'
      ? ['=', '!=']
      : ['=', '!=', '~'];
  if (!(allowed as readonly string[]).includes(op)) {
    return refuse({
      problem: `${name} is ${CALLED[kind]}, which ${op} does not fit`,
      expected: `one of ${allowed.join(' ')}`,
    });
  }
  if (op === '~') {
    const part = value.toLowerCase();
    return ok((item, now) => subject.of(item, now).some((one) => String(one).toLowerCase().includes(part)));
  }
  const wanted = operand(subject, value);
  if (!wanted.ok) return wanted;
  const holds = (order: number) => {
    switch (op) {
      case '<':
        return order < 0;
      case '<=':
        return order <= 0;
      case '>':
        return order > 0;
      case '>=':
        return order >= 0;
      default:
        return order === 0;
    }
  };
  const some: Predicate<T> = (item, now) =>
    subject.of(item, now).some((one) => holds(orderOf(kind === 'age' ? ageMs(one, now) : one, wanted.value)));
  return ok(op === '!=' ? (item, now) => !some(item, now) : some);
}

function ageMs(since: Scalar, now: Date): number {
  return now.getTime() - (since as Date).getTime();
}

export function orderOf(a: Scalar, b: Scalar): number {
  if (typeof a === 'string' || typeof b === 'string') return a === b ? 0 : String(a) < String(b) ? -1 : 1;
  const [left, right] = [a, b].map((value) => (value instanceof Date ? value.getTime() : value)) as [number, number];
  return left < right ? -1 : left > right ? 1 : 0;
}

const AGE_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000 };

function operand<T>({ kind, known }: Subject<T>, value: string): Result<Scalar, Wrong> {
  const quoted = JSON.stringify(value);
  switch (kind) {
    case 'text':
      return ok(value);
    case 'words': {
      const word = value.toLowerCase();
      if (known.includes(word)) return ok(word);
      const near = nearest(word, known);
      return refuse({
        problem: `${quoted} is not known`,
        expected: near === undefined ? `one of ${known.join(', ')}` : `did you mean ${near}?`,
      });
    }
    case 'bool':
      if (value === 'true' || value === 'false') return ok(value === 'true');
      return refuse({ problem: `${quoted} is neither true nor false`, expected: 'true or false' });
    case 'number':
      if (/^-?\d{1,18}$/.test(value)) return ok(BigInt(value));
      return refuse({ problem: `${quoted} is no whole number`, expected: 'a whole number' });
    case 'bytes':
      return parseBytes(value);
    case 'ms':
      return parseMs(value);
    case 'age': {
      const match = /^(\d{1,9}(?:\.\d{1,3})?)(s|m|min|h|d)$/.exec(value);
      if (match !== null) return ok(Number(match[1]) * (AGE_MS[match[2] ?? ''] ?? 0));
      return refuse({ problem: `${quoted} is no age`, expected: 'a number with s, min, h or d' });
    }
    case 'time': {
      const time = /^\d{4}-\d\d-\d\d(T[\d:.]+(Z|[+-]\d\d:\d\d)?)?$/.test(value)
        ? new Date(value)
        : new Date(Number.NaN);
      if (!Number.isNaN(time.getTime())) return ok(time);
      return refuse({ problem: `${quoted} is no time`, expected: 'e.g. 2026-03-01 or 2026-03-01T10:00:00Z' });
    }
  }
}
