// SPDX-License-Identifier: Apache-2.0
import { BusbarError, type ErrorKind } from '@busbar/core/errors';
import type { WireError } from './protocol.ts';

/** Stable reasons of errors that come from the hosting itself, not from the library. */
export const NATIVE_REASONS = {
  /** A call passed its deadline; its child was killed, so nothing of it runs any longer. */
  deadline: 'NATIVE_DEADLINE',
  /** The child ended while the call was waiting or running; whether it took effect is unknown. */
  childLost: 'NATIVE_CHILD_LOST',
  /** The child does not start (library missing, initialisation refused). */
  startFailed: 'NATIVE_START_FAILED',
  queueFull: 'NATIVE_QUEUE_FULL',
  closed: 'NATIVE_CLOSED',
  /** The child threw something that names no reason of its own. */
  failed: 'NATIVE_FAILED',
} as const;

/** The error as the child threw it; always the `cause` of the BusbarError that the caller gets. */
export class NativeError extends Error {
  override readonly name: string;
  readonly code: string | number | null;

  constructor(wire: WireError) {
    super(wire.message);
    this.name = wire.name;
    this.code = wire.code;
  }
}

export function toWire(error: unknown): WireError {
  if (!(error instanceof Error)) {
    return { name: 'Error', message: String(error), code: null, kind: null, reason: null, hint: '' };
  }
  const code = (error as { code?: unknown }).code ?? (error.cause as { code?: unknown } | undefined)?.code;
  const busbar = error instanceof BusbarError ? error : null;
  return {
    name: error.name,
    message: error.message,
    code: typeof code === 'string' || typeof code === 'number' ? code : null,
    kind: busbar?.kind ?? null,
    reason: busbar?.reason ?? null,
    hint: busbar?.hint ?? '',
  };
}

export function fromWire(wire: WireError): BusbarError {
  return new BusbarError({
    kind: (wire.kind as ErrorKind | null) ?? 'internal',
    reason: wire.reason ?? NATIVE_REASONS.failed,
    message: wire.message,
    hint: wire.hint,
    cause: new NativeError(wire),
  });
}

/** errno or library code of what the child threw, wherever it is in the chain of causes. */
export function nativeCode(error: unknown): string | number | null {
  for (let current = error, depth = 0; current instanceof Error && depth < 8; current = current.cause, depth++) {
    if (current instanceof NativeError) return current.code;
  }
  return null;
}
