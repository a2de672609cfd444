// SPDX-License-Identifier: Apache-2.0
import {
  ListOperationsRequest,
  Operation,
  OperationServiceDefinition,
  OperationState,
  WatchOperationsResponse,
} from '@busbar/proto/gen/busbar/v1/operation';
import { CliError, EXIT } from '../cli/exit.ts';
import { ageColumn, enumColumn, numberColumn } from '../resource/columns.ts';
import { PAGE_SIZE, type Resource } from '../resource/resource.ts';
import { ENDED } from './log-lines.ts';

export interface OperationFilter {
  readonly active?: boolean;
  readonly target?: string;
}

export const operations: Resource<Operation, OperationFilter> = {
  singular: 'operation',
  plural: 'operations',
  message: 'busbar.v1.Operation',
  columns: [
    { header: 'ID', value: (op) => op.id },
    { header: 'METHOD', value: (op) => op.method },
    {
      header: 'TARGET',
      value: (op) => (op.target === undefined ? '-' : `${op.target.kind}/${op.target.name || op.target.id}`),
      shrinks: true,
    },
    enumColumn({
      header: 'STATE',
      generated: OperationState,
      prefix: 'OPERATION_STATE',
      of: (op) => op.state,
      colour: (op) =>
        op.state === OperationState.SUCCEEDED ? 'green' : op.state === OperationState.FAILED ? 'red' : 'yellow',
    }),
    { ...numberColumn('%', (op) => op.progressPercent), key: 'progress' },
    ageColumn((op) => op.createTime),
    { header: 'BY', value: (op) => op.createdBy, wide: true },
    { header: 'MESSAGE', value: (op) => op.error?.message || op.message, shrinks: true },
  ],
  id: (op) => op.id,
  name: (op) => op.id,
  toJson: (op) => Operation.toJSON(op),
  async list(api, pageToken, filter) {
    const request = ListOperationsRequest.create({
      pageSize: PAGE_SIZE,
      pageToken,
      activeOnly: filter.active === true,
      targetId: filter.target ?? '',
    });
    const page = await api.call(OperationServiceDefinition, (client, options) =>
      client.listOperations(request, options),
    );
    return { items: page.operations, nextPageToken: page.nextPageToken, revision: 0n };
  },
  async get(api, name) {
    const { operation } = await api.call(OperationServiceDefinition, (client, options) =>
      client.getOperation({ operation: name }, options),
    );
    return present(operation, name);
  },
  async watch(api, revision, options) {
    const { client, address, failed } = await api.open(OperationServiceDefinition);
    const stream = client.watchOperations({ revision }, options);
    return { address, failed, changes: changes(stream) };
  },
  matches: (op, filter) =>
    (filter.active !== true || !ENDED.has(op.state)) &&
    (filter.target === undefined || op.target?.id === filter.target),
};

export async function* changes(stream: AsyncIterable<WatchOperationsResponse>) {
  for await (const message of stream) {
    const { change, operation, progress } = message;
    yield { change, item: operation, progress: progress?.revision, json: WatchOperationsResponse.toJSON(message) };
  }
}

/** Proto messages are optional on the wire; an answer without its resource is a fault of the controller. */
export function present<T>(value: T | undefined, name: string): T {
  if (value !== undefined) return value;
  throw new CliError({
    exit: EXIT.failed,
    reason: 'INTERNAL',
    what: `the answer about ${name} is empty`,
    why: ['the controller sent a response without the resource'],
    hint: 'compare the versions: busbar version',
  });
}
