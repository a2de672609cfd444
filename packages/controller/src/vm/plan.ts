// SPDX-License-Identifier: Apache-2.0
import { type Result, refuse } from '@busbar/core/result';
import { type DomainReport, DomainState, EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import { type Placement, RunPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { cut } from '../api/validation.ts';
import { boundedObservation, driftOf, sameObservation } from './drift.ts';
import type { LiveVmPhase } from './state.ts';
import { ON_HOST, phaseWord } from './state.ts';

/**
 * Reconciler of one VM: compares what the user wants (VmRecord), where the cluster says it is (VmStatusRecord) and what
 * its host reports, and says what the status becomes. Pure; the leader commits the answer in a transaction that
 * compares both records, so a race costs one more round.
 *
 * Ground rules:
 *  - a VM leaves a host (host = '') only when that host's agent reported the end of exactly the current epoch;
 *  - every start raises the epoch in the same transaction that names the host and its boot;
 *  - of an epoch that was given to a former boot, another boot's word counts when it is alone: only then has the lease of
 *    every former boot certainly ended. Until then it is as if the host did not report;
 *  - a host that does not report makes its VMs UNKNOWN, never stopped: silence is no proof (fencing comes with HA).
 */
export interface VmObservation {
  /** What the assigned host reports for the current epoch; null when it reports nothing of it (yet). */
  readonly domain: DomainReport | null;
  /** What QEMU said of volumes of this VM that were grown; nothing of other volumes. Absent: nothing was said. */
  readonly diskSizes?: Readonly<Record<string, bigint>>;
  /** The assigned host's agent is connected to this leader and has reported. */
  readonly hostReporting: boolean;
  /** Boot id of the machine that reports; empty when none does. */
  readonly bootId: string;
  /** That machine holds the host's lease and no other one speaks for the host (HostObservation). */
  readonly isAlone: boolean;
  /** Why the host does not report, for people. */
  readonly hostMessage: string;
  /** Monotonic milliseconds since this leader first saw the VM in its present phase and epoch. */
  readonly phaseAgeMs: number;
  /** Why nothing may start at all now; empty or absent when VMs may. */
  readonly held?: string;
  /** Asked only when the VM shall start. */
  readonly place: () => Result<DecidedPlacement, string>;
  /** Of the assigned host; undefined when there is none. */
  readonly inventory: HostInventory | undefined;
  /** Digest of the hardware the VM would be started with now. */
  readonly hardware: string;
  /** Revision of the VM record. */
  readonly revision: bigint;
  readonly wallTime: Date;
}

export interface VmPlan {
  /** Null when nothing changes. */
  readonly status: VmStatusRecord | null;
  /** What it waits on, for `explain` and the log. */
  readonly report: string;
}

export interface DecidedPlacement {
  readonly placement: Placement;
  /** Boot id of the host, which the epoch is given to. */
  readonly bootId: string;
  /** For people. */
  readonly reason: string;
}

/** A VM that ran this long was healthy: the count of failed starts begins anew. */
const HEALTHY_AFTER_MS = 60_000;
/** First and longest pause before a start is tried again; doubles with each failure. */
const RESTART_FIRST_MS = 1_000;
const RESTART_MAX_MS = 300_000;

export function shallRun(vm: VmRecord): boolean {
  return vm.spec?.runPolicy === RunPolicy.RUNNING && !vm.meta?.deleting;
}

/** The VM is to leave its host: stop asked for, deleted, or a restart of this very epoch. */
export function shallStop(vm: VmRecord, status: VmStatusRecord): boolean {
  return !shallRun(vm) || (status.restartEpoch !== 0n && status.restartEpoch === status.epoch);
}

/** No epoch up to this one may be started any more. */
export function newestEpoch({ epoch, epochFloor }: VmStatusRecord): bigint {
  return epoch > epochFloor ? epoch : epochFloor;
}

export function restartDelayMs(failedStarts: number): number {
  return failedStarts === 0 ? 0 : Math.min(RESTART_MAX_MS, RESTART_FIRST_MS * 2 ** (failedStarts - 1));
}

export function planVm(vm: VmRecord, status: VmStatusRecord, seen: VmObservation): VmPlan {
  switch (status.phase) {
    case VmPhase.CREATING:
    case VmPhase.DELETING:
      return { status: null, report: `a saga is ${phaseWord(status.phase)} it` };
    case VmPhase.STOPPED:
    case VmPhase.PENDING:
      return planOffHost(vm, status, seen);
    case VmPhase.STARTING:
    case VmPhase.RUNNING:
    case VmPhase.STOPPING:
    case VmPhase.PAUSED:
    case VmPhase.UNKNOWN:
      return planOnHost(vm, status, seen);
    default:
      return { status: null, report: `unknown phase ${status.phase}` };
  }
}

function planOffHost(vm: VmRecord, status: VmStatusRecord, seen: VmObservation): VmPlan {
  if (!shallRun(vm)) {
    if (status.phase === VmPhase.PENDING)
      return { status: { ...status, phase: VmPhase.STOPPED, message: '' }, report: 'shall not run' };
    return { status: null, report: 'shall not run' };
  }
  const waitMs = restartDelayMs(status.failedStarts) - seen.phaseAgeMs;
  if (status.phase === VmPhase.STOPPED && waitMs > 0)
    return { status: null, report: `next start in ${Math.ceil(waitMs / 1000)} s` };
  const placed = seen.held ? refuse(seen.held) : seen.place();
  if (!placed.ok) {
    const message = seen.held ? seen.held : `no host fits: ${placed.error}`;
    if (status.phase === VmPhase.PENDING && status.message === message) return { status: null, report: message };
    return { status: { ...status, phase: VmPhase.PENDING, message }, report: message };
  }
  return {
    status: {
      ...status,
      phase: VmPhase.STARTING,
      message: '',
      host: placed.value.placement.host,
      bootId: placed.value.bootId,
      placement: placed.value.placement,
      placementReason: placed.value.reason,
      observedPlacement: undefined,
      placementDrift: '',
      diskSizes: {},
      epoch: newestEpoch(status) + 1n,
      startedRevision: seen.revision,
      startedHardware: seen.hardware,
      restartEpoch: 0n,
      restartByForce: false,
    },
    report: `starts on ${placed.value.placement.host}`,
  };
}

function planOnHost(vm: VmRecord, status: VmStatusRecord, seen: VmObservation): VmPlan {
  if (!seen.hostReporting) {
    return become(status, VmPhase.UNKNOWN, `${status.host} does not report: ${seen.hostMessage}`, seen);
  }
  const isFormer = status.bootId !== '' && status.bootId !== seen.bootId;
  if (isFormer && !(seen.isAlone && seen.domain?.state === DomainState.ENDED))
    return become(status, VmPhase.UNKNOWN, whyFormer(status.host, seen), seen);
  const stop = shallStop(vm, status);
  const domain = seen.domain;
  if (domain === null) {
    // The agent has not taken up this epoch yet, or has not looked again since it came back.
    if (status.phase === VmPhase.UNKNOWN) return become(status, stop ? VmPhase.STOPPING : VmPhase.STARTING, '', seen);
    return become(status, stop ? VmPhase.STOPPING : (status.phase as LiveVmPhase), status.message, seen);
  }
  switch (domain.state) {
    case DomainState.ENDED:
      return ended(vm, status, domain, stop, seen);
    case DomainState.STARTING: {
      // What runs is not being started: an agent that looks again may say so for a moment.
      const begun = status.phase === VmPhase.RUNNING || status.phase === VmPhase.PAUSED;
      const phase = begun ? (status.phase as LiveVmPhase) : VmPhase.STARTING;
      return become(status, stop ? VmPhase.STOPPING : phase, domain.message, seen);
    }
    case DomainState.PAUSED:
      return become(status, stop ? VmPhase.STOPPING : VmPhase.PAUSED, domain.message, seen);
    case DomainState.STOPPING:
      return become(status, VmPhase.STOPPING, domain.message, seen);
    case DomainState.RUNNING:
      return become(status, stop ? VmPhase.STOPPING : VmPhase.RUNNING, domain.message, seen);
    default:
      return { status: null, report: `host reports ${domain.state}` };
  }
}

function whyFormer(host: string, seen: VmObservation): string {
  if (seen.isAlone) return `${host} was booted anew; it has not said yet that this VM does not run there`;
  return `it was given to a former boot of ${host}, whose lease may still live`;
}

function become(status: VmStatusRecord, phase: LiveVmPhase, told: string, seen: VmObservation): VmPlan {
  const message = bounded(told);
  const healthy = phase === VmPhase.RUNNING && status.phase === VmPhase.RUNNING && seen.phaseAgeMs >= HEALTHY_AFTER_MS;
  const failedStarts = healthy ? 0 : status.failedStarts;
  // Only a start begins the run: a VM that comes back from UNKNOWN or PAUSED ran all the time.
  const begins = phase === VmPhase.RUNNING && (status.phase === VmPhase.STARTING || status.startTime === undefined);
  const next: VmStatusRecord = {
    ...status,
    phase,
    message,
    failedStarts,
    startTime: begins ? seen.wallTime : status.startTime,
    // A record of an older version does not say; the host reports under the boot that has it.
    bootId: status.bootId || (seen.hostReporting ? seen.bootId : ''),
    ...observedOf(status, seen),
    diskSizes: sizesOf(status, seen),
  };
  const same =
    phase === status.phase &&
    message === status.message &&
    failedStarts === status.failedStarts &&
    next.bootId === status.bootId &&
    !begins &&
    next.placementDrift === status.placementDrift &&
    next.diskSizes === status.diskSizes &&
    next.observedPlacement === status.observedPlacement;
  return { status: same ? null : next, report: message || phaseWord(phase) };
}

/** Sizes only grow; an agent that was restarted says nothing until it has asked again. */
function sizesOf(status: VmStatusRecord, seen: VmObservation): VmStatusRecord['diskSizes'] {
  const news = Object.entries(seen.diskSizes ?? {}).filter(([id, bytes]) => bytes > (status.diskSizes[id] ?? 0n));
  return news.length === 0 ? status.diskSizes : { ...status.diskSizes, ...Object.fromEntries(news) };
}

/** What the host told last stays when it tells nothing. */
function observedOf(
  status: VmStatusRecord,
  seen: VmObservation,
): Pick<VmStatusRecord, 'observedPlacement' | 'placementDrift'> {
  const told = seen.domain?.placement;
  const observedPlacement = told === undefined ? status.observedPlacement : boundedObservation(told);
  // What the record says already is kept as the object that it is: answers about it are remembered.
  const known = sameObservation(observedPlacement, status.observedPlacement)
    ? status.observedPlacement
    : observedPlacement;
  return { observedPlacement: known, placementDrift: driftOf(status.placement, known, seen.inventory) };
}

function ended(vm: VmRecord, status: VmStatusRecord, domain: DomainReport, stop: boolean, seen: VmObservation): VmPlan {
  const byItself = !stop;
  const message = !byItself
    ? ''
    : domain.endReason === EndReason.GUEST_SHUTDOWN
      ? 'the guest powered off by itself'
      : bounded(domain.message) || domain.endReason.replace('END_REASON_', '').toLowerCase();
  // A restart stays one failure-free cycle; an end that nobody asked for makes the next start wait.
  const ranWell = status.phase === VmPhase.RUNNING && seen.phaseAgeMs >= HEALTHY_AFTER_MS;
  const failedStarts = byItself ? (ranWell ? 1 : status.failedStarts + 1) : 0;
  const next: VmStatusRecord = {
    ...status,
    phase: VmPhase.STOPPED,
    message,
    host: '',
    bootId: '',
    placement: undefined,
    placementReason: '',
    observedPlacement: undefined,
    placementDrift: '',
    diskSizes: {},
    startTime: undefined,
    failedStarts,
  };
  return { status: next, report: shallRun(vm) ? `ended (${message || 'restart'}); starts again` : 'stopped' };
}

/** What a host says is kept in the cluster store and shown everywhere: long enough for QEMU's reasons, no longer. */
const MESSAGE_MAX = 1_000;

function bounded(message: string): string {
  return cut(message, MESSAGE_MAX);
}

export function isOnHost(status: VmStatusRecord): boolean {
  return ON_HOST.has(status.phase);
}
