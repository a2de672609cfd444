// SPDX-License-Identifier: Apache-2.0
import { BusbarError, errorChain } from '@busbar/core/errors';
import type { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';

/** An error as it is stored with an operation and sent to a caller. The causes of a known error are part of its message. */
export function toErrorInfo(error: unknown): ErrorInfo {
  if (error instanceof BusbarError) {
    return {
      reason: error.reason,
      message: errorChain(error),
      hint: error.hint,
      fields: error.fields.map((f) => ({ ...f })),
    };
  }
  return {
    reason: 'INTERNAL',
    message: `unexpected: ${errorChain(error)}`,
    hint: "this is a bug in Busbar: see the controller's log",
    fields: [],
  };
}
