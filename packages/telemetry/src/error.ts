// SPDX-License-Identifier: Apache-2.0
import { inspect } from 'node:util';
import { BusbarError, errorChain } from '@busbar/core/errors';

/** One error of a chain of causes, as a log line holds it. */
export interface ErrorLink {
  readonly name: string;
  readonly message: string;
  /** Both of a BusbarError. */
  readonly kind?: string;
  readonly reason?: string;
  /** Of Node's errors (ECONNREFUSED) and of libraries (a number). */
  readonly code?: string | number;
}

export interface ErrorRecord {
  /** The messages of the whole chain in one line, for people. */
  readonly message: string;
  /** The chain, outermost first, for programs. */
  readonly chain: readonly ErrorLink[];
  /** Only of what nobody expected: a refusal with a reason explains itself. */
  readonly stack?: string;
}

/** As deep as errorChain looks; a circle ends here, too. */
const DEPTH = 8;
/** Of AggregateError: Node tries every address of a name, and says all that went wrong. */
const SIBLINGS = 4;
/** QEMU's last words fit. */
const MESSAGE_CHARACTERS = 4_000;

export function errorRecord(error: unknown): ErrorRecord {
  const chain: ErrorLink[] = [];
  for (let current = error, depth = 0; current !== undefined && current !== null && depth < DEPTH; depth++) {
    chain.push(link(current));
    if (current instanceof AggregateError) chain.push(...current.errors.slice(0, SIBLINGS).map(link));
    current = current instanceof Error ? current.cause : undefined;
  }
  const message = cut(errorChain(error));
  return isExpected(error) ? { message, chain } : { message, chain, stack: stackOf(error) };
}

function link(error: unknown): ErrorLink {
  if (!(error instanceof Error)) {
    return { name: typeof error, message: cut(typeof error === 'string' ? error : inspect(error, { depth: 1 })) };
  }
  const { code } = error as { code?: unknown };
  return {
    name: error.name,
    message: cut(error.message),
    ...(error instanceof BusbarError ? { kind: error.kind, reason: error.reason } : {}),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
  };
}

function isExpected(error: unknown): boolean {
  return error instanceof BusbarError && error.kind !== 'internal';
}

function stackOf(error: unknown): string {
  return error instanceof Error ? cut(error.stack ?? '') : '';
}

function cut(text: string): string {
  return text.length <= MESSAGE_CHARACTERS ? text : `${text.slice(0, MESSAGE_CHARACTERS)}…`;
}
