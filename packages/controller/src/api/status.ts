// SPDX-License-Identifier: Apache-2.0
import { BusbarError, type ErrorKind } from '@busbar/core/errors';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { Status } from 'nice-grpc-common';
import { toErrorInfo } from './error-info.ts';

/** The one place where an error becomes a gRPC status. */
const STATUS: Readonly<Record<ErrorKind, Status>> = {
  invalid: Status.INVALID_ARGUMENT,
  'not-found': Status.NOT_FOUND,
  'already-exists': Status.ALREADY_EXISTS,
  precondition: Status.FAILED_PRECONDITION,
  conflict: Status.ABORTED,
  exhausted: Status.RESOURCE_EXHAUSTED,
  unavailable: Status.UNAVAILABLE,
  timeout: Status.DEADLINE_EXCEEDED,
  unauthenticated: Status.UNAUTHENTICATED,
  forbidden: Status.PERMISSION_DENIED,
  cancelled: Status.CANCELLED,
  internal: Status.INTERNAL,
};

/** Trailer with the encoded busbar.v1.ErrorInfo. */
export const ERROR_TRAILER = 'busbar-error-bin';

export function statusOf(error: unknown): {
  readonly code: Status;
  readonly message: string;
  readonly info: Uint8Array;
} {
  const info = toErrorInfo(error);
  const code = error instanceof BusbarError ? STATUS[error.kind] : Status.INTERNAL;
  return { code, message: `${info.reason}: ${info.message}`.slice(0, MESSAGE_MAX), info: encodeBounded(info) };
}

/** HTTP/2 header blocks are limited to 16 KiB in many stacks; an error must never be lost to its own length. */
const MESSAGE_MAX = 2_000;
const INFO_MAX = 6_000;

function encodeBounded(info: ErrorInfo): Uint8Array {
  const whole = ErrorInfo.encode(info).finish();
  if (whole.length <= INFO_MAX) return whole;
  return ErrorInfo.encode({
    ...info,
    message: info.message.slice(0, MESSAGE_MAX),
    fields: info.fields.slice(0, 5),
  }).finish();
}
