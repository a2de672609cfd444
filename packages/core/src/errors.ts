// SPDX-License-Identifier: Apache-2.0
import { inspect } from 'node:util';

/**
 * What a caller can be told. Every error that reaches a user carries three things: what happened
 * (message), why it is refused as a stable word for programs (reason), and what to do (hint).
 *
 * `kind` decides the gRPC status in one place (controller/src/api/status.ts).
 */
export type ErrorKind =
  /** The request itself is wrong; repeating it unchanged is useless. */
  | 'invalid'
  | 'not-found'
  | 'already-exists'
  /** The request is right but the state of the world forbids it now. */
  | 'precondition'
  /** The record changed since the caller read it. */
  | 'conflict'
  /** No room: memory, CPUs, disk space, quota. */
  | 'exhausted'
  /** A part of the cluster does not answer; retry later. */
  | 'unavailable'
  /** The deadline passed; the outcome is unknown to the caller. */
  | 'timeout'
  | 'unauthenticated'
  | 'forbidden'
  | 'cancelled'
  | 'internal';

export interface FieldViolation {
  /** Path as the user wrote it, e.g. `spec.disks[0].size`. */
  readonly field: string;
  /** What is wrong, with the offending value. */
  readonly problem: string;
  /** What would be right. */
  readonly expected: string;
}

export interface ErrorDetails {
  readonly kind: ErrorKind;
  /** Stable upper-snake word for programs, e.g. VM_NAME_TAKEN. */
  readonly reason: string;
  readonly message: string;
  /** What the user can do about it; empty when there is nothing. */
  readonly hint?: string;
  readonly fields?: readonly FieldViolation[];
  readonly cause?: unknown;
}

export class BusbarError extends Error {
  override readonly name = 'BusbarError';
  readonly kind: ErrorKind;
  readonly reason: string;
  readonly hint: string;
  readonly fields: readonly FieldViolation[];

  constructor(details: ErrorDetails) {
    super(details.message, details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = details.kind;
    this.reason = details.reason;
    this.hint = details.hint ?? '';
    this.fields = details.fields ?? [];
  }
}

/** The message of an error and of everything that caused it, outermost first. */
export function errorChain(error: unknown): string {
  const parts: string[] = [];
  for (let current: unknown = error, depth = 0; current !== undefined && depth < 8; depth++) {
    // Anything can be thrown; inspect never throws itself.
    const text =
      current instanceof Error
        ? current.message
        : typeof current === 'string'
          ? current
          : inspect(current, { depth: 1 });
    if (parts.at(-1) !== text) parts.push(text);
    current = current instanceof Error ? current.cause : undefined;
  }
  return parts.join(': ');
}
