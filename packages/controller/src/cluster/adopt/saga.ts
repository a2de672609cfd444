// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { AdoptionPlan } from '@busbar/proto/gen/busbar/v1/cluster';
import type { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { VolumePhase } from '@busbar/proto/gen/busbar/v1/volume';
import type { Leader } from '../../leader/leader.ts';
import { operationOf, voided } from '../../operation/progress.ts';
import { DONE, done, type PoolContext, type Saga, type StepOutcome, type StepWrites } from '../../operation/saga.ts';
import { ENDED } from '../../operation/state.ts';
import { importKey, putRecord } from '../../records/kinds.ts';
import type { SessionRegistry } from '../../session/registry.ts';
import type { ClusterStore, Compare, StoreHistory, Write } from '../../store/cluster-store.ts';
import { type Entry, unchanged } from '../../view/table.ts';
import { HISTORY_ID, historyRecord, logLead } from '../behind.ts';
import { planAdoption, type VmChange } from './plan.ts';
import { adoptionInput } from './world.ts';

/**
 * Saga: takes over what really runs, and lets VMs start again. While the store is behind it is the only one that runs, and
 * the VM reconciler starts nothing, so the records of VMs have one writer.
 *
 * One step. It plans on what hosts report at that moment, writes each VM's records in a transaction of its own, and clears the mark
 * in the one that ends the step. A leader that dies in between leaves the mark: the next one plans again, finds what was
 * written to be so already, and goes on. Nothing is undone: what was recorded is what runs.
 */
export const ADOPT_SAGA = 'adopt-cluster';

/** What the operation is about. */
export const ADOPTION_TARGET = { kind: 'store', id: HISTORY_ID, name: 'cluster' };

interface Deps {
  readonly store: Pick<ClusterStore, 'list'>;
  readonly sessions: SessionRegistry;
  readonly leader: Leader;
  /** The store's own word, as it is now. */
  readonly history: () => Promise<StoreHistory>;
}

/** Terms and revisions told to agents rise by this much: no store has had as many revisions since any backup. */
const POSITION_LEAP = 1_000_000_000_000n;
/** etcd's limit of writes in one transaction is 128; the operation's and the record's come on top. */
const NOTES_MAX = 100;

/** What operations of before the restore are told that were about a VM that runs. */
const STORE_RESTORED: ErrorInfo = {
  reason: 'STORE_RESTORED',
  message: 'the cluster store was restored while this was under way; the VM was adopted as it runs',
  hint: 'ask for it again if it is still wanted',
  fields: [],
};

/** Name and steps, for whoever makes the operation. */
export const ADOPT_CLUSTER: Saga = {
  name: ADOPT_SAGA,
  steps: [{ name: 'record', pool: true, do: async () => DONE, undo: null, pointOfNoReturn: true }],
};

export function adoptSaga(deps: Deps): Saga {
  const [step] = ADOPT_CLUSTER.steps;
  if (step === undefined) throw new Error('no step');
  // No undo: what was recorded is what runs.
  return { name: ADOPT_SAGA, steps: [{ ...step, pool: true, do: (context) => adopt(deps, context) }] };
}

async function adopt(deps: Deps, context: PoolContext): Promise<StepOutcome> {
  const { view } = context;
  await view.fresh();
  const entry = historyRecord(view);
  // Another adoption was faster.
  if (entry?.record.behindSince === undefined) return DONE;
  const { facts } = context.operation;
  const request = {
    withoutHosts: JSON.parse(facts.withoutHosts ?? '[]') as string[],
    keep: JSON.parse(facts.keep ?? '[]') as { vm: string; host: string }[],
  };
  const { plan, changes, unknownVms } = planAdoption(await adoptionInput({ ...deps, ...context }, request));
  assertNoObstacles(plan);
  for (const change of changes) await write(deps, context, recordsOf(context, change));
  for (const operation of unfinishedDeletions(context)) await write(deps, context, operation);
  const history = await deps.history();
  const next = {
    ...entry.record,
    clusterId: history.clusterId,
    logLead: logLead(history),
    positionOffset: entry.record.positionOffset + POSITION_LEAP,
    behindSince: undefined,
    signs: [],
    adoptedTime: context.clock.wallTime(),
    unknownVms: [...unknownVms],
  };
  const notes = await importNotes(deps, context);
  context.logger.info({ vms: changes.length, epochFloor: String(plan.epochFloor) }, 'the cluster is adopted');
  return done({ compare: [unchanged('store', entry)], writes: [putRecord('store', HISTORY_ID, next), ...notes] });
}

export function assertNoObstacles({ obstacles }: AdoptionPlan): void {
  const [first] = obstacles;
  if (first === undefined) return;
  throw new BusbarError({
    kind: 'precondition',
    reason: 'ADOPTION_BLOCKED',
    message: `nothing was adopted: ${obstacles.map(({ message }) => message).join('; ')}`,
    hint: obstacles.map(({ hint }) => hint).join('; '),
  });
}

/** One fenced transaction; a lost race (a user's change) makes the step begin anew, on what the view then shows. */
async function write({ leader }: Deps, { view }: PoolContext, { compare, writes }: StepWrites): Promise<void> {
  if (writes.length === 0) return;
  const result = await leader.txn({ compare, writes });
  if (!result.succeeded)
    throw new BusbarError({
      kind: 'unavailable',
      reason: 'ADOPTION_RACE',
      message: 'a record changed while it was being adopted',
    });
  await view.waitFor(result.revision);
}

/** The records of one VM, and of what was under way with it when the backup was made. */
function recordsOf(context: PoolContext, { vm, status, nextVm, nextStatus, runs }: VmChange): StepWrites {
  const compare: Compare[] = [unchanged('vm', vm), unchanged('vm-status', status)];
  const writes: Write[] = [putRecord('vm-status', vm.id, nextStatus)];
  if (nextVm !== vm.record) writes.push(putRecord('vm', vm.id, nextVm));
  if (!runs) return { compare, writes };
  const { volume, operation } = context.view.tables;
  for (const entry of volume.sorted()) {
    // A VM that runs has complete disks, whatever its creation had come to.
    if (entry.record.ownerVmId !== vm.id || entry.record.phase !== VolumePhase.CREATING) continue;
    compare.push(unchanged('volume', entry));
    writes.push(putRecord('volume', entry.id, { ...entry.record, phase: VolumePhase.READY }));
  }
  for (const entry of operation.sorted()) {
    if (!isUnfinished(entry) || operationOf(entry.record).target?.id !== vm.id) continue;
    compare.push(unchanged('operation', entry));
    writes.push(putRecord('operation', entry.id, voided(entry.record, STORE_RESTORED, context.clock.wallTime())));
  }
  return { compare, writes };
}

const isUnfinished = ({ record }: Entry<OperationRecord>) =>
  record.saga !== ADOPT_SAGA && !ENDED.has(operationOf(record).state);

/**
 * What was being deleted when the backup was made may have been kept after all, and used since: deletions are called off
 * where that is still possible, and can be asked for again.
 */
function unfinishedDeletions({ view }: PoolContext): readonly StepWrites[] {
  return view.tables.operation.sorted().flatMap((entry) => {
    const operation = operationOf(entry.record);
    if (!isUnfinished(entry) || !entry.record.saga.startsWith('delete-') || operation.cancelRequested) return [];
    const next = { ...entry.record, operation: { ...operation, cancelRequested: true } };
    return [{ compare: [unchanged('operation', entry)], writes: [putRecord('operation', entry.id, next)] }];
  });
}

/** Without its note, what an import left in the pool is never removed: since the backup it may have become an image. */
async function importNotes({ store }: Deps, { view }: PoolContext): Promise<readonly Write[]> {
  const prefix = importKey('');
  const notes = (await store.list(prefix, { limit: NOTES_MAX })).value.map(({ key }) => key);
  const orphans = notes.filter((key) => view.tables.image.get(key.slice(prefix.length)) === undefined);
  return orphans.map((key) => ({ kind: 'delete', key }));
}
