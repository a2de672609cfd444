// SPDX-License-Identifier: Apache-2.0
import type { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { because, type EventDraft, error, info, warning } from '../event/draft.ts';

/** The end of an operation; told of what it worked on, since that is what people look for. */
export function operationEvents(
  before: OperationRecord | undefined,
  after: OperationRecord | undefined,
): readonly EventDraft[] {
  const operation = after?.operation;
  if (operation === undefined || operation.state === before?.operation?.state) return [];
  const facts = {
    operation: operation.id,
    method: operation.method,
    createdBy: operation.createdBy,
    error: operation.error?.reason,
  };
  switch (operation.state) {
    case OperationState.SUCCEEDED:
      return [info('OPERATION_SUCCEEDED', `${operation.method} is done`, facts)];
    case OperationState.FAILED:
      return [error('OPERATION_FAILED', because(`${operation.method} failed`, operation.error?.message), facts)];
    case OperationState.CANCELLED:
      return [warning('OPERATION_CANCELLED', `${operation.method} was cancelled`, facts)];
    default:
      return [];
  }
}
