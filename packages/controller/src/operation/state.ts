// SPDX-License-Identifier: Apache-2.0
import type { StateTable } from '@busbar/core/state-table';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';

export type LiveOperationState = Exclude<
  OperationState,
  typeof OperationState.UNSPECIFIED | typeof OperationState.UNRECOGNIZED
>;

/** Writer: the leader's saga runner alone (the API only sets cancel_requested). */
export const OPERATION_STATES: StateTable<LiveOperationState> = {
  [OperationState.PENDING]: [OperationState.RUNNING, OperationState.CANCELLED],
  // FAILED and CANCELLED directly: past the saga's point of no return.
  [OperationState.RUNNING]: [
    OperationState.SUCCEEDED,
    OperationState.UNDOING,
    OperationState.FAILED,
    OperationState.CANCELLED,
  ],
  [OperationState.UNDOING]: [OperationState.FAILED, OperationState.CANCELLED],
  [OperationState.SUCCEEDED]: [],
  [OperationState.FAILED]: [],
  [OperationState.CANCELLED]: [],
};

export const ENDED: ReadonlySet<OperationState> = new Set([
  OperationState.SUCCEEDED,
  OperationState.FAILED,
  OperationState.CANCELLED,
]);
