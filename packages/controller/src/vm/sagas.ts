// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import { BusbarError } from '@busbar/core/errors';
import type { ImageId, VmId, VolumeId } from '@busbar/core/ids';
import { move } from '@busbar/core/state-table';
import type { VolumeRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { RunPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { VolumePhase } from '@busbar/proto/gen/busbar/v1/volume';
import { operationOf } from '../operation/progress.ts';
import {
  DONE,
  done,
  NO_WRITES,
  type PoolContext,
  type Saga,
  type SagaContext,
  type StepOutcome,
  type StepWrites,
} from '../operation/saga.ts';
import { ENDED } from '../operation/state.ts';
import { deleteRecord, nameKey, putRecord } from '../records/kinds.ts';
import type { Compare, Write } from '../store/cluster-store.ts';
import { type Entry, unchanged } from '../view/table.ts';
import { deleteWhenClosed } from '../volume/delete.ts';
import { lastEpochs } from './access.ts';
import { isOnHost } from './plan.ts';
import { type LiveVmPhase, phaseWord, VM_PHASES } from './state.ts';

/**
 * Sagas on VMs. They never place or stop anything themselves: that is the VM reconciler's, which compares the
 * user's record with the world. A saga prepares (volumes, records) and waits for the reconciler's result.
 *
 * Races: a VM's status is written by the reconciler as well; each write compares the status it saw.
 */

function targetId(context: SagaContext): string {
  const id = operationOf(context.operation).target?.id;
  assert(id !== undefined && id !== '', 'operation without target');
  return id;
}

function ownedVolumes(context: SagaContext): readonly Entry<VolumeRecord>[] {
  return context.view.tables.volume.sorted().filter((entry) => entry.record.ownerVmId === targetId(context));
}

function withoutVolumes(volumes: readonly Entry<VolumeRecord>[]): StepWrites {
  return {
    compare: volumes.map((entry) => unchanged('volume', entry)),
    writes: volumes.flatMap((entry) => [
      deleteRecord('volume', entry.id),
      { kind: 'delete', key: nameKey('volume', entry.record.meta?.name ?? '') } as const,
    ]),
  };
}

/** Removes every trace of the VM from the store. */
function withoutVm(context: SagaContext): StepWrites {
  const id = targetId(context);
  const vm = context.view.tables.vm.get(id);
  if (vm === undefined) return NO_WRITES;
  const volumes = withoutVolumes(ownedVolumes(context));
  return {
    compare: [unchanged('vm', vm), ...volumes.compare],
    writes: [
      deleteRecord('vm', id),
      deleteRecord('vm-status', id),
      { kind: 'delete', key: nameKey('vm', vm.record.meta?.name ?? '') },
      ...volumes.writes,
    ],
  };
}

async function createVolumes(context: PoolContext): Promise<StepOutcome> {
  const volumes = ownedVolumes(context);
  for (const { id, record } of volumes) {
    const sizeBytes = record.spec?.sizeBytes ?? 0n;
    if (record.spec?.image) {
      await context.storage.cloneVolume({ volumeId: id as VolumeId, imageId: record.spec.image as ImageId, sizeBytes });
    } else {
      await context.storage.createVolume({ volumeId: id as VolumeId, sizeBytes });
    }
  }
  const compare: Compare[] = volumes.map((entry) => unchanged('volume', entry));
  const writes: Write[] = volumes.map((entry) =>
    putRecord('volume', entry.id, { ...entry.record, phase: VolumePhase.READY }),
  );
  return done({ compare, writes });
}

/** Null when all are gone, else what it waits for. */
async function deleteVolumes(context: PoolContext): Promise<string | null> {
  const vmId = targetId(context) as VmId;
  const epoch = context.view.tables['vm-status'].get(vmId)?.record.epoch ?? 0n;
  await context.storage.revokeAccess(vmId, lastEpochs(epoch));
  for (const { id } of ownedVolumes(context)) {
    const waitsFor = await deleteWhenClosed(context, id);
    if (waitsFor !== null) return waitsFor;
  }
  return null;
}

/** A start that waits longer than this for room or for its host is told as failed; the VM itself stays and is tried on. */
const START_PATIENCE_MS = 120_000;

async function awaitRunning(context: SagaContext): Promise<StepOutcome> {
  const id = targetId(context);
  const vm = context.view.tables.vm.get(id);
  const status = context.view.tables['vm-status'].get(id)?.record;
  if (vm === undefined || status === undefined) return DONE;
  if (vm.record.spec?.runPolicy !== RunPolicy.RUNNING) return DONE;
  const after = BigInt(context.operation.facts.afterEpoch ?? '0');
  if (status.phase === VmPhase.RUNNING && status.epoch > after) return DONE;
  const before = Number(context.operation.facts.failuresBefore ?? '0');
  if (status.failedStarts > before && status.epoch > after) {
    throw new BusbarError({
      kind: 'precondition',
      reason: 'VM_START_FAILED',
      message: `VM "${vm.record.meta?.name}" did not start: ${status.message || 'it ended right away'}`,
      hint: `the VM stays and is tried again; see "busbar vm get ${vm.record.meta?.name}"`,
    });
  }
  if (context.stepAgeMs > START_PATIENCE_MS) {
    throw new BusbarError({
      kind: 'exhausted',
      reason: status.phase === VmPhase.PENDING ? 'NO_HOST_FITS' : 'VM_START_SLOW',
      message: `VM "${vm.record.meta?.name}" is still ${phaseWord(status.phase)} after ${START_PATIENCE_MS / 1000} s: ${status.message || `on ${status.host}`}`,
      hint: 'the VM stays and is tried on; stop it or make room',
    });
  }
  return {
    kind: 'wait',
    message: status.message || `${phaseWord(status.phase)}${status.host === '' ? '' : ` on ${status.host}`}`,
  };
}

async function awaitOffHost(context: SagaContext): Promise<StepOutcome> {
  const status = context.view.tables['vm-status'].get(targetId(context))?.record;
  if (status === undefined || !isOnHost(status)) return DONE;
  return { kind: 'wait', message: status.message || `${phaseWord(status.phase)} on ${status.host}` };
}

/** A restart's first half. Its guest has the time that the user gave it; the host takes its power then, which takes seconds. */
async function awaitStopped(context: SagaContext): Promise<StepOutcome> {
  const id = targetId(context);
  const status = context.view.tables['vm-status'].get(id)?.record;
  const after = BigInt(context.operation.facts.afterEpoch ?? '0');
  if (status === undefined || !isOnHost(status) || status.epoch > after) return DONE;
  const vm = context.view.tables.vm.get(id)?.record;
  const patienceMs = (vm?.spec?.shutdownTimeoutMs ?? 0) + START_PATIENCE_MS;
  if (context.stepAgeMs > patienceMs) {
    throw new BusbarError({
      kind: 'exhausted',
      reason: 'VM_STOP_SLOW',
      message: `VM "${vm?.meta?.name}" is still ${phaseWord(status.phase)} after ${patienceMs / 1000} s: ${status.message || `on ${status.host}`}`,
      hint: 'it is restarted as soon as its host has stopped it; look at the host',
    });
  }
  return { kind: 'wait', message: status.message || `${phaseWord(status.phase)} on ${status.host}` };
}

function setPhase(context: SagaContext, phase: LiveVmPhase): StepWrites {
  const entry = context.view.tables['vm-status'].get(targetId(context));
  if (entry === undefined || entry.record.phase === phase) return NO_WRITES;
  const next = { ...entry.record, phase: move(VM_PHASES, entry.record.phase as LiveVmPhase, phase) };
  return { compare: [unchanged('vm-status', entry)], writes: [putRecord('vm-status', entry.id, next)] };
}

export const CREATE_VM: Saga = {
  name: 'create-vm',
  steps: [
    // The API wrote the records together with the operation; this step is their undo.
    { name: 'accept', do: async () => DONE, undo: async (context) => withoutVm(context) },
    {
      name: 'create-volumes',
      pool: true,
      do: createVolumes,
      undo: async (context) => {
        // Epoch 0: no host was ever told to run the VM, so what has a volume open is the orphan of a controller.
        const neverUsed = context.view.tables['vm-status'].get(targetId(context))?.record.epoch === 0n;
        for (const { id } of ownedVolumes(context)) await context.storage.deleteVolume(id as VolumeId, { neverUsed });
        return NO_WRITES;
      },
    },
    // Undone by "accept": as long as the phase is CREATING or the step has just been done, no host has the VM.
    { name: 'define', do: async (context) => done(setPhase(context, VmPhase.STOPPED)), undo: null },
    // No undo: the VM exists and is the user's; a failed start leaves it, stopped, with the reason.
    { name: 'start', do: awaitRunning, undo: null, pointOfNoReturn: true },
  ],
};

export const DELETE_VM: Saga = {
  name: 'delete-vm',
  steps: [
    {
      name: 'accept',
      do: async () => DONE,
      undo: async (context) => {
        const vm = context.view.tables.vm.get(targetId(context));
        // Replaced by another deletion (with force, say): the VM stays marked for that one.
        if (vm?.record.meta === undefined || replaced(context)) return NO_WRITES;
        const kept = { ...vm.record, meta: { ...vm.record.meta, deleting: false } };
        return { compare: [unchanged('vm', vm)], writes: [putRecord('vm', vm.id, kept)] };
      },
    },
    // No undo: a guest that was shut down is started again by the reconciler when deletion is called off.
    { name: 'stop', do: awaitOffHost, undo: null },
    // No undo from here on: deleted data does not come back.
    {
      name: 'close',
      do: async (context) => done(setPhase(context, VmPhase.DELETING)),
      undo: null,
      pointOfNoReturn: true,
      onlyForward: true,
    },
    {
      name: 'delete-volumes',
      pool: true,
      do: async (context) => {
        const waitsFor = await deleteVolumes(context);
        return waitsFor === null ? done(withoutVolumes(ownedVolumes(context))) : { kind: 'wait', message: waitsFor };
      },
      undo: null,
    },
    { name: 'forget', do: async (context) => done(withoutVm(context)), undo: null },
  ],
};

/** Another deletion of the same VM waits for this one to end. */
function replaced(context: SagaContext): boolean {
  const own = operationOf(context.operation);
  return context.view.tables.operation.sorted().some(({ id, record }) => {
    const other = operationOf(record);
    return (
      id !== own.id &&
      record.saga === DELETE_VM.name &&
      other.target?.id === own.target?.id &&
      !ENDED.has(other.state) &&
      !other.cancelRequested
    );
  });
}

/** A start asked for by the user does not wait out the pauses of earlier failures. */
async function forgetFailures(context: SagaContext): Promise<StepOutcome> {
  const entry = context.view.tables['vm-status'].get(targetId(context));
  if (entry === undefined || entry.record.failedStarts === 0) return DONE;
  if (isOnHost(entry.record)) return done(NO_WRITES, { failuresBefore: String(entry.record.failedStarts) });
  const next = { ...entry.record, failedStarts: 0, message: '' };
  return done({ compare: [unchanged('vm-status', entry)], writes: [putRecord('vm-status', entry.id, next)] });
}

export const START_VM: Saga = {
  name: 'start-vm',
  steps: [
    { name: 'prepare', do: forgetFailures, undo: null, pointOfNoReturn: true },
    // No undo: the run policy is the user's word and stays.
    { name: 'start', do: awaitRunning, undo: null },
  ],
};

export const STOP_VM: Saga = {
  name: 'stop-vm',
  // No undo: a guest that was asked to shut down cannot be un-asked.
  steps: [{ name: 'stop', do: awaitOffHost, undo: null, pointOfNoReturn: true }],
};

export const RESTART_VM: Saga = {
  name: 'restart-vm',
  steps: [
    {
      name: 'request',
      do: async (context) => {
        const entry = context.view.tables['vm-status'].get(targetId(context));
        if (entry === undefined) return DONE;
        const facts = { afterEpoch: String(entry.record.epoch) };
        // Off its host it is about to be started anyway: as for a start, earlier failures are forgotten.
        if (!isOnHost(entry.record)) return { ...(await forgetFailures(context)), facts };
        const next = {
          ...entry.record,
          restartEpoch: entry.record.epoch,
          restartByForce: context.operation.facts.force === 'true',
        };
        return done(
          { compare: [unchanged('vm-status', entry)], writes: [putRecord('vm-status', entry.id, next)] },
          facts,
        );
      },
      // No undo: as for a stop.
      undo: null,
      pointOfNoReturn: true,
    },
    // No undo of these either: see above.
    { name: 'stop', do: awaitStopped, undo: null },
    { name: 'start', do: awaitRunning, undo: null },
  ],
};
