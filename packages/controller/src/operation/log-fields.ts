// SPDX-License-Identifier: Apache-2.0
import type { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { ClusterView } from '../view/view.ts';
import { operationOf } from './progress.ts';
import { ENDED } from './state.ts';

/** The ids that every log line about an operation carries: its own, and that of what it works on (`vmId`, `volumeId`, `imageId`). */
export function operationFields(id: string, record: OperationRecord): Readonly<Record<string, string>> {
  const { target } = operationOf(record);
  return {
    operationId: id,
    saga: record.saga,
    ...(target === undefined ? {} : { [`${target.kind}Id`]: target.id }),
  };
}

/** The operation whose turn it is on a target, for a line about something that it waits for; nothing when there is none. */
export function operationOn(view: ClusterView, targetId: string): Readonly<Record<string, string>> {
  const live = view.tables.operation.sorted().filter(({ record }) => {
    const { state, target } = operationOf(record);
    return target?.id === targetId && !ENDED.has(state);
  });
  const [first] = live.sort((a, b) => (a.createRevision < b.createRevision ? -1 : 1));
  return first === undefined ? {} : { operationId: first.id };
}
