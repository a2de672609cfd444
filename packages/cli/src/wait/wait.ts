// SPDX-License-Identifier: Apache-2.0
/** `busbar wait`: by a watch that goes on at the next controller when the one it began at dies. */
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { type Operation, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { Status } from 'nice-grpc';
import type { Api } from '../api/api.ts';
import { RpcError } from '../api/rpc-error.ts';
import { CliError, EXIT } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { operations } from '../operation/resource.ts';
import { waitForOperation } from '../operation/wait.ts';
import { print } from '../output/print.ts';
import { compileFilter, type Predicate, parseFilter } from '../resource/filter.ts';
import { kindEntry } from '../resource/kinds.ts';
import { listAll, nameOf, type Resource } from '../resource/resource.ts';
import { streamChanges } from '../resource/stream.ts';
import { subjectFor } from '../resource/subject.ts';
import { type Condition, parseCondition, parseTarget } from './condition.ts';

/** Longer than any start or stop takes; a script that hangs for ever is worse than one that fails. */
const DEFAULT_TIMEOUT = '10min';

export async function runWait(session: Session, target: string, text: string): Promise<void> {
  const condition = parseCondition(text);
  const { kind, name } = parseTarget(target);
  const resource = await kindEntry(kind).load();
  const holds = condition.kind === 'filter' ? await compileFilter(resource, condition.text, '--for') : () => false;
  session.doing = `wait for ${text} of ${target}`;
  session.defaultTimeout(DEFAULT_TIMEOUT);
  const api = await session.api();
  const item = await existing(api, resource, name);
  if (item === undefined) {
    if (condition.kind !== 'deleted') throw missing(session, target, 'there is no such resource');
    return done(session, target, 'is deleted', undefined);
  }
  const label = nameOf(resource, item);
  switch (condition.kind) {
    case 'deleted':
      await untilDeleted(session, api, resource, item);
      return done(session, label, 'is deleted', undefined);
    case 'operation': {
      const count = await untilIdle(session, api, resource.id(item));
      const text = count === 0 ? 'has no operation under way' : 'has no operation under way any more';
      return done(session, label, text, undefined);
    }
    case 'filter': {
      const last = await untilHolds(session, api, resource, item, holds, await describer(resource, condition));
      return done(session, label, `is ${condition.text}`, resource.toJson(last));
    }
  }
}

function done(session: Session, target: string, text: string, item: unknown): Promise<void> {
  const json = () => item ?? { resource: target, state: text };
  return print(session, { json, names: () => [target], table: () => `${target} ${text}\n` });
}

async function existing<T>(api: Api, resource: Resource<T>, name: string): Promise<T | undefined> {
  try {
    return await resource.get(api, name);
  } catch (error) {
    if (error instanceof RpcError && error.code === Status.NOT_FOUND) return undefined;
    throw error;
  }
}

/** What is to be told of an item when the time is over: what the condition asks for, as it is. */
async function describer<T>(
  resource: Resource<T>,
  condition: Extract<Condition, { kind: 'filter' }>,
): Promise<(item: T, now: Date) => string> {
  const terms = parseFilter(condition.text);
  const names = [...new Set(terms.ok ? terms.value.map(({ name }) => name) : [])];
  const message = resource.columns.find(({ header }) => header === 'MESSAGE');
  const subjects = await Promise.all(names.map(async (name) => [name, await subjectFor(resource, name)] as const));
  return (item, now) => {
    const values = subjects.map(([name, subject]) => `${name}=${subject.of(item, now).map(String).join('|')}`);
    const why = message?.value(item, now) ?? '';
    return `it was ${values.join(',')}${why === '' ? '' : ` (${why})`}`;
  };
}

async function untilHolds<T>(
  session: Session,
  api: Api,
  resource: Resource<T>,
  begin: T,
  holds: Predicate<T>,
  describe: (item: T, now: Date) => string,
): Promise<T> {
  const id = resource.id(begin);
  const now = () => session.io.now();
  const look = (item: T): boolean => {
    session.lastSeen = describe(item, now());
    return holds(item, now());
  };
  if (look(begin)) return begin;
  for await (const { change, item } of streamChanges(session, api, resource, {})) {
    if (change === ChangeKind.PROGRESS || change === ChangeKind.RESYNC) {
      // Deleted while nobody watched: the stream began anew without it.
      if ((await existing(api, resource, id)) === undefined) throw missing(session, nameOf(resource, begin), DELETED);
    }
    if (item === undefined || resource.id(item) !== id) continue;
    if (change === ChangeKind.DELETE) throw missing(session, nameOf(resource, begin), DELETED);
    if (look(item)) return item;
  }
  throw new Error('a watch does not end');
}

const DELETED = 'it was deleted meanwhile';

async function untilDeleted<T>(session: Session, api: Api, resource: Resource<T>, begin: T): Promise<void> {
  const id = resource.id(begin);
  session.lastSeen = 'it is still there';
  for await (const { change, item } of streamChanges(session, api, resource, {})) {
    if (change === ChangeKind.DELETE && item !== undefined && resource.id(item) === id) return;
    if (change !== ChangeKind.PROGRESS && change !== ChangeKind.RESYNC) continue;
    if ((await existing(api, resource, id)) === undefined) return;
  }
}

/** Returns how many operations were waited for. */
async function untilIdle(session: Session, api: Api, target: string): Promise<number> {
  for (let count = 0; ; count++) {
    const { items } = await listAll(api, operations, { active: true, target });
    const next = items.at(-1);
    if (next === undefined) return count;
    session.lastSeen = `${label(next)} is still under way`;
    const doing = session.doing;
    session.doing = `${next.method} ${next.target?.kind ?? ''}/${next.target?.name ?? ''}`;
    // A failure of an earlier one matters no more once a later one has put it right.
    if (items.length === 1) await waitForOperation(session, api, next);
    else await waitForOperation(session, api, next).catch((error: unknown) => ignoreFailure(session, error));
    session.doing = doing;
  }
}

function ignoreFailure(session: Session, error: unknown): void {
  session.signal.throwIfAborted();
  if (!(error instanceof CliError) || error.exit !== EXIT.failed) throw error;
}

function label(operation: Operation): string {
  const begun = operation.state === OperationState.PENDING ? 'waiting' : `${operation.progressPercent} %`;
  return `${operation.method} (${operation.id}, ${begun})`;
}

function missing(session: Session, target: string, why: string): CliError {
  return new CliError({
    exit: EXIT.notFound,
    reason: 'NOT_FOUND',
    what: `cannot ${session.doing}`,
    why: [`${target}: ${why}`],
    hint: `busbar ${target.split('/')[0]} list shows what there is`,
  });
}
