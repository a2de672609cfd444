// SPDX-License-Identifier: Apache-2.0
import type { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { Operation } from '@busbar/proto/gen/busbar/v1/operation';
import type { Entry } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { operationOf } from './progress.ts';

export function presentOperation(entry: Entry<OperationRecord>): Operation {
  return { ...operationOf(entry.record), revision: entry.modRevision };
}

export function operationById(id: string, view: ClusterView): Operation | undefined {
  const entry = view.tables.operation.get(id);
  return entry === undefined ? undefined : presentOperation(entry);
}
