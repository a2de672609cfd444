// SPDX-License-Identifier: Apache-2.0
import { BusbarError, type ErrorKind } from '@busbar/core/errors';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { Status } from 'nice-grpc-common';
import { toErrorInfo } from './error-info.ts';
import { cut } from './validation.ts';

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
  return { code, message: cut(`${info.reason}: ${info.message}`, MESSAGE_MAX), info: encodeBounded(info) };
}

/**
 * HTTP/2 header blocks are limited to 16 KiB in many stacks, 8 KiB in some; an error must never be lost to its own
 * length. The message travels percent-encoded (up to nine bytes a character), the trailer in base64.
 */
const MESSAGE_MAX = 500;
const INFO_MAX = 4_000;

function encodeBounded(info: ErrorInfo): Uint8Array {
  const whole = ErrorInfo.encode(info).finish();
  if (whole.length <= INFO_MAX) return whole;
  const shortened = (messageMax: number, fieldsMax: number) =>
    ErrorInfo.encode({
      reason: cut(info.reason, 64),
      message: cut(info.message, messageMax),
      hint: cut(info.hint, 200),
      fields: info.fields.slice(0, fieldsMax).map((f) => ({
        field: cut(f.field, 160),
        problem: cut(f.problem, 120),
        expected: cut(f.expected, 120),
      })),
    }).finish();
  const most = shortened(2_000, 4);
  // At worst three bytes a character: 3 × (64 + 500 + 200 + 160 + 2 × 120) = 3.5 KB.
  return most.length <= INFO_MAX ? most : shortened(500, 1);
}
