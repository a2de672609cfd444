// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import type { WatchOperationsResponse } from '@busbar/proto/gen/busbar/v1/operation';
import { type Operation, type OperationServiceDefinition, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { z } from 'zod';
import type { Api, Call } from '../api/call.ts';
import { caughtUp } from '../api/mutate.ts';
import { creationKey, page, pageFields } from '../api/pages.ts';
import { notFound } from '../api/refusals.ts';
import type { Service } from '../api/service.ts';
import { reference, revision } from '../api/validation.ts';
import { watchTable } from '../api/watch.ts';
import { audited } from '../audit/change.ts';
import { text } from '../bounds/schema.ts';
import { putRecord } from '../records/kinds.ts';
import { unchanged } from '../view/table.ts';
import { operationById, presentOperation } from './present.ts';
import { operationOf } from './progress.ts';
import { ENDED } from './state.ts';

const WAIT_DEFAULT_MS = 60_000;
const WAIT_MAX_MS = 600_000;

export function operationService(api: Api): Service<typeof OperationServiceDefinition> {
  return {
    getOperation: {
      access: 'read',
      schema: z.object({ operation: reference }),
      async handle(request) {
        await api.view.fresh();
        return { operation: existing(api, request.operation) };
      },
    },
    listOperations: {
      access: 'read',
      schema: z.object({ ...pageFields, activeOnly: z.boolean(), targetId: text(253, 'a resource id') }),
      async handle(request) {
        await api.view.fresh();
        const wanted = api.view.tables.operation
          .oldestFirst()
          .filter((entry) => !request.activeOnly || !ENDED.has(operationOf(entry.record).state))
          .filter((entry) => request.targetId === '' || operationOf(entry.record).target?.id === request.targetId)
          .toReversed();
        const { items, nextPageToken } = page(wanted, creationKey, request, true);
        return { operations: items.map(presentOperation), nextPageToken };
      },
    },
    waitOperation: {
      access: 'read',
      place: 'wait',
      schema: z.object({
        operation: reference,
        timeoutMs: z.number().int('milliseconds').min(0, '0 to 600000 ms').max(WAIT_MAX_MS, '0 to 600000 ms'),
      }),
      handle: (request, call) => waitOperation(api, request.operation, request.timeoutMs || WAIT_DEFAULT_MS, call),
    },
    cancelOperation: {
      access: 'write',
      schema: z.object({ operation: reference }),
      handle: (request, call) => cancelOperation(api, request.operation, call),
    },
    watchOperations: {
      access: 'read',
      place: 'watch',
      schema: z.object({ revision, operation: text(253, 'an operation id') }),
      handle: (request, call) =>
        watchTable<Operation, WatchOperationsResponse>(api, call, request.revision, {
          kinds: ['operation'],
          ids: () => (request.operation === '' ? api.view.tables.operation.ids() : [request.operation]),
          present: (id) =>
            request.operation === '' || request.operation === id ? (operationById(id, api.view) ?? null) : null,
          put: (operation) => ({ change: ChangeKind.PUT, operation }),
          gone: (id) => ({ change: ChangeKind.DELETE, operation: goneOperation(id) }),
          mark: (change, progress) => ({ change, operation: undefined, progress }),
          shared: null,
        }),
    },
  };
}

function existing(api: Api, id: string): Operation {
  const operation = operationById(id, api.view);
  if (operation === undefined) throw notFound('operation', id);
  return operation;
}

async function waitOperation(api: Api, id: string, timeoutMs: number, call: Call): Promise<{ operation: Operation }> {
  await api.view.fresh();
  let last = existing(api, id);
  if (ENDED.has(last.state)) return { operation: last };
  await new Promise<void>((resolve) => {
    const finish = () => {
      timer[Symbol.dispose]();
      subscription[Symbol.dispose]();
      call.signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = api.clock.timer(timeoutMs, finish);
    const subscription = api.view.changes.onFlush(() => {
      const now = operationById(id, api.view);
      if (now === undefined || ENDED.has(now.state)) finish();
    });
    call.signal.addEventListener('abort', finish, { once: true });
    if (call.signal.aborted) finish();
  });
  last = operationById(id, api.view) ?? last;
  return { operation: last };
}

async function cancelOperation(api: Api, id: string, call: Call): Promise<{ operation: Operation | undefined }> {
  // A step may be recorded between reading and writing; three rounds outlast any saga's pace.
  for (let round = 0; round < 3; round++) {
    await api.view.fresh();
    const entry = api.view.tables.operation.get(id);
    if (entry === undefined) throw notFound('operation', id);
    const operation = operationOf(entry.record);
    if (ENDED.has(operation.state)) {
      throw new BusbarError({
        kind: 'precondition',
        reason: 'OPERATION_ENDED',
        message: `operation ${id} has ended already: ${operation.state.replace('OPERATION_STATE_', '').toLowerCase()}`,
        hint: 'to take back what it did, ask for the opposite',
      });
    }
    if (operation.cancelRequested) {
      // Asked for already: a repeat.
      call.audit.settled = true;
      return { operation: presentOperation(entry) };
    }
    const next = { ...entry.record, operation: { ...operation, cancelRequested: true } };
    const change = audited(api, call, {
      compare: [unchanged('operation', entry)],
      writes: [putRecord('operation', id, next)],
      ids: { operationId: '', resourceId: id },
      requestId: '',
    });
    const result = await api.commit(call, change);
    if (result.succeeded) {
      call.audit.settled = true;
      await caughtUp(api, result.revision, { operationId: id, resourceId: '' });
      return { operation: operationById(id, api.view) };
    }
  }
  throw new BusbarError({
    kind: 'conflict',
    reason: 'TOO_MANY_RACES',
    message: `operation ${id} is moving too fast to be cancelled`,
    hint: 'try again',
  });
}

function goneOperation(id: string): Operation {
  return {
    id,
    method: '',
    target: undefined,
    state: OperationState.UNSPECIFIED,
    progressPercent: 0,
    steps: [],
    message: '',
    error: undefined,
    createTime: undefined,
    endTime: undefined,
    createdBy: '',
    requestId: '',
    cancelRequested: false,
    revision: 0n,
  };
}
