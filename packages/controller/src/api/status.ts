// SPDX-License-Identifier: Apache-2.0
import { BusbarError, type ErrorKind } from '@busbar/core/errors';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { Status } from 'nice-grpc-common';
import { toErrorInfo } from './error-info.ts';
import { cut } from './validation.ts';

/** The one place where an error becomes a status: gRPC's, and HTTP's by the mapping of google.rpc.Code. */
const STATUS: Readonly<Record<ErrorKind, { readonly grpc: Status; readonly http: number }>> = {
  invalid: { grpc: Status.INVALID_ARGUMENT, http: 400 },
  'not-found': { grpc: Status.NOT_FOUND, http: 404 },
  'already-exists': { grpc: Status.ALREADY_EXISTS, http: 409 },
  precondition: { grpc: Status.FAILED_PRECONDITION, http: 400 },
  conflict: { grpc: Status.ABORTED, http: 409 },
  exhausted: { grpc: Status.RESOURCE_EXHAUSTED, http: 429 },
  unavailable: { grpc: Status.UNAVAILABLE, http: 503 },
  timeout: { grpc: Status.DEADLINE_EXCEEDED, http: 504 },
  unauthenticated: { grpc: Status.UNAUTHENTICATED, http: 401 },
  forbidden: { grpc: Status.PERMISSION_DENIED, http: 403 },
  cancelled: { grpc: Status.CANCELLED, http: 499 },
  internal: { grpc: Status.INTERNAL, http: 500 },
};

function kindOf(error: unknown): ErrorKind {
  return error instanceof BusbarError ? error.kind : 'internal';
}

/** Trailer with the encoded busbar.v1.ErrorInfo. */
export const ERROR_TRAILER = 'busbar-error-bin';

export function statusOf(error: unknown): {
  readonly code: Status;
  readonly message: string;
  readonly info: Uint8Array;
} {
  const info = toErrorInfo(error);
  const code = STATUS[kindOf(error)].grpc;
  return { code, message: cut(`${info.reason}: ${info.message}`, MESSAGE_MAX), info: encodeBounded(info) };
}

/** An error as the JSON edge answers it: the same words as over gRPC, not cut, since a body has room. */
export interface ErrorAnswer {
  readonly httpStatus: number;
  readonly body: { readonly code: string } & Required<ErrorInfo>;
}

export function errorAnswerOf(error: unknown): ErrorAnswer {
  const { grpc, http } = STATUS[kindOf(error)];
  return { httpStatus: http, body: { code: Status[grpc] ?? 'INTERNAL', ...toErrorInfo(error) } };
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
