// SPDX-License-Identifier: Apache-2.0
import type { VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { because, type EventDraft, error, info, warning } from '../event/draft.ts';
import { type LiveVmPhase, phaseWord } from './state.ts';

/** What a phase that was entered tells; the phase that was left decides where it says more. Pure. */
const ENTERED: Readonly<Record<LiveVmPhase, (from: VmPhase, status: VmStatusRecord) => EventDraft | null>> = {
  // The creation is an operation, whose end is an event.
  [VmPhase.CREATING]: () => null,
  [VmPhase.PENDING]: (from, status) => warning('VM_WAITING', because('waits', status.message), facts(from, status)),
  [VmPhase.STARTING]: (from, status) => info('VM_STARTING', `starts on ${status.host}`, facts(from, status)),
  [VmPhase.RUNNING]: (from, status) =>
    from === VmPhase.STARTING
      ? info('VM_STARTED', `runs on ${status.host}`, facts(from, status))
      : info('VM_RESUMED', `runs again on ${status.host}, was ${phaseWord(from)}`, facts(from, status)),
  [VmPhase.STOPPING]: (from, status) =>
    info('VM_STOPPING', because('is being stopped', status.message), facts(from, status)),
  [VmPhase.STOPPED]: stopped,
  [VmPhase.PAUSED]: (from, status) =>
    error('VM_PAUSED', because(`stands still on ${status.host}`, status.message), facts(from, status)),
  [VmPhase.UNKNOWN]: (from, status) =>
    error('VM_UNKNOWN', because(`may or may not run on ${status.host}`, status.message), facts(from, status)),
  [VmPhase.DELETING]: (from, status) => info('VM_DELETING', 'is being deleted', facts(from, status)),
};

function stopped(from: VmPhase, status: VmStatusRecord): EventDraft | null {
  if (from === VmPhase.CREATING) return info('VM_CREATED', 'was created', facts(from, status));
  // It waited for room, and was called off.
  if (from === VmPhase.PENDING) return null;
  if (from === VmPhase.STOPPING) return info('VM_STOPPED', 'was stopped', facts(from, status));
  if (from === VmPhase.STARTING)
    return error('VM_START_FAILED', because('did not start', status.message), facts(from, status));
  return warning('VM_ENDED', because('ended by itself', status.message), facts(from, status));
}

function facts(from: VmPhase, status: VmStatusRecord) {
  return { from: phaseWord(from), host: status.host, epoch: status.epoch === 0n ? '' : String(status.epoch) };
}

export function vmStatusEvents(
  before: VmStatusRecord | undefined,
  after: VmStatusRecord | undefined,
): readonly EventDraft[] {
  if (before === undefined) return [];
  // A creation that was undone leaves nothing that anybody had.
  if (after === undefined) return before.phase === VmPhase.DELETING ? [info('VM_DELETED', 'was deleted')] : [];
  return [...phaseEvents(before, after), ...driftEvents(before, after)];
}

/** A VM that does not have what placement counts on is a fault, whatever else happens to it. */
function driftEvents(before: VmStatusRecord, after: VmStatusRecord): readonly EventDraft[] {
  const drift = after.placementDrift;
  if (drift === before.placementDrift || after.host === '') return [];
  const about = { host: after.host, epoch: String(after.epoch) };
  if (drift !== '') return [error('VM_PLACEMENT_DRIFT', because('does not have what was decided', drift), about)];
  return after.epoch === before.epoch ? [info('VM_PLACEMENT_RESTORED', 'has what was decided again', about)] : [];
}

function phaseEvents(before: VmStatusRecord, after: VmStatusRecord): readonly EventDraft[] {
  if (before.phase === after.phase) return [];
  // Undefined for a phase of a newer version.
  const event = ENTERED[after.phase as LiveVmPhase]?.(before.phase, {
    ...after,
    host: after.host === '' ? before.host : after.host,
  });
  return event == null ? [] : [event];
}
