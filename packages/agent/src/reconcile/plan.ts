// SPDX-License-Identifier: Apache-2.0
import type { BootId, VmId } from '@busbar/core/ids';
import { DesiredRun, type DesiredVm, type DomainReport, EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { DomainEnd, DomainObservation } from '../driver/host-driver.ts';
import type { Action } from './action.ts';
import type { Desired } from './desired.ts';
import { learn } from './learn.ts';
import { ended, isOver, NO_MEMORY, type VmMemory } from './memory.ts';
import { describeDomains, type VmPlan } from './report.ts';
import type { Observation, VmTrack } from './track.ts';

/**
 * Decides what to do with the VMs of this host; a reconciler: it re-reads everything each time and
 * has no undo. Pure. The rules, each of which keeps a VM from running twice:
 *
 * - An epoch that was given to another boot of this host is never started here. When nothing of its VM is there, it is over
 *   as far as this boot can tell; whether the other boot is gone is for the controllers to know.
 * - An epoch is started at most once, and only when it is newer than everything ever started or
 *   ended here, no domain of the VM is there, and no earlier start of the VM has an open outcome.
 * - What a listing says of a VM counts only if it began after the VM's last action ended.
 * - A domain is destroyed for one of four reasons: an order, a newer epoch assigned to this host, a
 *   stop asked for by the user, or that its epoch was reported as ended (a start that everybody
 *   gave up came up after all: by now the VM may run elsewhere). Never because it is not listed.
 * - An epoch is reported as ended only when it is certain that it will not come up: the driver saw
 *   it end or refused it, or it stays away long enough (learn.ts).
 */
export interface PlanInput {
  readonly nowMs: number;
  readonly desired: Desired | undefined;
  readonly memory: ReadonlyMap<VmId, VmMemory>;
  readonly tracks: ReadonlyMap<VmId, VmTrack>;
  /** Undefined until domains were listed once. */
  readonly observation: Observation | undefined;
  /** Ends that the driver told before `observation` began. */
  readonly ends: readonly DomainEnd[];
  /** Why nothing may be started now; empty when starts are allowed. */
  readonly noStart: string;
  /** Of this host, now. */
  readonly bootId: BootId;
}

export interface Plan {
  readonly actions: readonly Action[];
  /** The same object as came in when there is nothing new to remember. */
  readonly memory: ReadonlyMap<VmId, VmMemory>;
  readonly tracks: ReadonlyMap<VmId, VmTrack>;
  readonly report: { readonly domains: readonly DomainReport[]; readonly notes: readonly string[] };
  /** When to plan again even if nothing happens. */
  readonly wakeAtMs: number;
}

/** Starts, stops and the rest are limited apart, so that what hangs does not keep a VM from being stopped. */
const IN_FLIGHT_LIMIT = 4;
/** A guest that is still booting, or sits at a login prompt without acpid ready, misses the power button. */
const PRESS_AGAIN_MS = 10_000;

export function plan(input: PlanInput): Plan {
  let memory: Map<VmId, VmMemory> | undefined;
  const tracks = new Map<VmId, VmTrack>();
  const domains: DomainReport[] = [];
  const notes: string[] = [...(input.desired?.problems ?? [])];
  const actions: Action[] = [];
  const waiting: string[] = [];
  let wakeAtMs = Number.POSITIVE_INFINITY;
  for (const vmId of concerned(input)) {
    const vm = planVm(input, vmId);
    if (vm.memory !== (input.memory.get(vmId) ?? NO_MEMORY)) {
      memory ??= new Map(input.memory);
      memory.set(vmId, vm.memory);
    }
    tracks.set(vmId, vm.track);
    domains.push(...describeDomains(vm));
    if (vm.note !== '') notes.push(vm.note);
    if (vm.waits) waiting.push(vm.assigned?.name ?? vmId);
    if (vm.action !== undefined) actions.push(vm.action);
    wakeAtMs = Math.min(wakeAtMs, vm.wakeAtMs);
  }
  if (waiting.length > 0) notes.push(`not started: ${enumerate(waiting)}: ${input.noStart}`);
  const report = { domains, notes };
  return { actions: limited(actions, input.tracks), memory: memory ?? input.memory, tracks, report, wakeAtMs };
}

function planVm(input: PlanInput, vmId: VmId): VmPlan {
  const known = learn(input, vmId);
  const { domain, usable } = known;
  let { memory, track, wakeAtMs } = known;
  const listedVm = input.desired?.vms.get(vmId);
  const refused = listedVm !== undefined && listedVm.epoch < memory.highestEpoch;
  const assigned = refused ? undefined : listedVm;
  const destroyUpTo = input.desired?.destroyUpTo.get(vmId) ?? 0n;
  let action: Action | undefined;
  let waits = false;

  if (track.stop !== undefined && !isAskedToShutDown(assigned, track.stop.epoch)) track = { ...track, stop: undefined };

  if (assigned?.epoch === memory.endedEpoch && memory.end === undefined) memory = { ...memory, end: FORGOTTEN };

  if (usable && domain !== undefined) {
    let why = whyDestroy(domain, assigned, destroyUpTo, memory);
    if (why === '' && assigned?.run === DesiredRun.SHUTDOWN && assigned.epoch === domain.epoch) {
      const stop = track.stop ?? { epoch: domain.epoch, begunAtMs: input.nowMs, pressedAtMs: Number.NEGATIVE_INFINITY };
      const giveUpAtMs = stop.begunAtMs + assigned.shutdownTimeoutMs;
      const pressAtMs = stop.pressedAtMs + PRESS_AGAIN_MS;
      track = { ...track, stop };
      if (input.nowMs >= giveUpAtMs) why = `the guest did not shut down within ${assigned.shutdownTimeoutMs} ms`;
      else if (input.nowMs >= pressAtMs) action = { kind: 'press', vmId, epoch: domain.epoch };
      else wakeAtMs = Math.min(wakeAtMs, pressAtMs, giveUpAtMs);
    }
    if (why !== '' && input.nowMs >= track.retryAtMs) action = { kind: 'destroy', vmId, epoch: domain.epoch, why };
    else if (why !== '') wakeAtMs = Math.min(wakeAtMs, track.retryAtMs);
    else if (action === undefined) {
      const disk = diskToGrow(domain, assigned, track);
      if (disk === undefined) track = track.growProblem === '' ? track : { ...track, growProblem: '' };
      else if (input.nowMs >= track.growAtMs) action = { kind: 'grow', vmId, epoch: domain.epoch, disk };
      else wakeAtMs = Math.min(wakeAtMs, track.growAtMs);
    }
  } else if (usable && assigned !== undefined && isStartable(memory, assigned.epoch)) {
    if (!isOfBoot(assigned, input.bootId)) memory = ended(memory, assigned.epoch, FORMER_BOOT, true);
    else
      switch (assigned.run) {
        case DesiredRun.RUNNING:
          if (destroyUpTo >= assigned.epoch || assigned.domain === undefined) break;
          if (input.noStart === '') action = { kind: 'start', vmId, epoch: assigned.epoch, vm: assigned };
          else waits = true;
          break;
        case DesiredRun.SHUTDOWN:
        case DesiredRun.POWER_OFF:
          memory = ended(memory, assigned.epoch, NEVER_STARTED, true);
          break;
        default: // of a newer controller: leave it alone
          break;
      }
  }
  const note = refused
    ? `refused: epoch ${listedVm.epoch} of ${listedVm.name} is older than ${memory.highestEpoch}`
    : known.note;
  return {
    vmId,
    assigned,
    memory,
    track,
    domain,
    listed: input.observation !== undefined,
    action,
    waits,
    note,
    wakeAtMs,
  };
}

/** The controllers told us to forget an epoch and then ask for it again: it still must not start. */
const FORGOTTEN = { reason: EndReason.VANISHED, message: 'this epoch is over; how it ended was forgotten as told' };
const FORMER_BOOT = { reason: EndReason.VANISHED, message: 'the host was rebooted' };
const NEVER_STARTED = { reason: EndReason.DESTROYED, message: 'it was stopped before this host started it' };

/** Why a domain that is there must not be; empty when it may. */
function whyDestroy(
  domain: DomainObservation,
  assigned: DesiredVm | undefined,
  destroyUpTo: bigint,
  memory: VmMemory,
): string {
  if (domain.epoch <= destroyUpTo) return 'its destruction was ordered';
  if (domain.epoch <= memory.endedEpoch) return `epoch ${domain.epoch} was reported as ended`;
  if (assigned === undefined) return '';
  if (domain.epoch < assigned.epoch) return `epoch ${domain.epoch} gives way to ${assigned.epoch}`;
  return assigned.run === DesiredRun.POWER_OFF ? 'power off was ordered' : '';
}

/** The first disk that shall be larger than QEMU is known to have it. Only of what runs: who stands still is not asked. */
function diskToGrow(domain: DomainObservation, assigned: DesiredVm | undefined, track: VmTrack) {
  if (assigned?.epoch !== domain.epoch || domain.state !== 'running') return undefined;
  const has = track.sizes.epoch === domain.epoch ? track.sizes.bytes : {};
  const disk = assigned.domain?.disks.find((each) => each.growToBytes > (has[each.volumeId] ?? 0n));
  return disk === undefined ? undefined : { volumeId: disk.volumeId, sizeBytes: disk.growToBytes };
}

/** A controller of an older version does not say. */
export function isOfBoot(vm: DesiredVm, bootId: BootId): boolean {
  return vm.bootId === '' || vm.bootId === bootId;
}

export function isStartable(memory: VmMemory, epoch: bigint): boolean {
  return isOver(memory) && epoch > memory.endedEpoch && epoch >= memory.highestEpoch;
}

function isAskedToShutDown(assigned: DesiredVm | undefined, epoch: bigint): boolean {
  return assigned?.epoch === epoch && assigned.run === DesiredRun.SHUTDOWN;
}

/** In the order of the desired state, so that the leader decides who starts first. */
function concerned(input: PlanInput): ReadonlySet<VmId> {
  const vmIds = new Set<VmId>(input.desired?.vms.keys());
  for (const domain of input.observation?.domains ?? []) vmIds.add(domain.vmId);
  for (const end of input.ends) vmIds.add(end.vmId);
  for (const [vmId, track] of input.tracks) if (track.busy !== undefined) vmIds.add(vmId);
  for (const [vmId, memory] of input.memory) if (!isOver(memory) || memory.end !== undefined) vmIds.add(vmId);
  return vmIds;
}

function limited(actions: readonly Action[], tracks: ReadonlyMap<VmId, VmTrack>): Action[] {
  let starts = 0;
  let stops = 0;
  let grows = 0;
  for (const track of tracks.values()) {
    if (track.busy === 'start') starts++;
    else if (track.busy === 'grow') grows++;
    else if (track.busy !== undefined) stops++;
  }
  return actions.filter((action) => {
    if (action.kind === 'grow') return grows++ < IN_FLIGHT_LIMIT;
    return (action.kind === 'start' ? starts++ : stops++) < IN_FLIGHT_LIMIT;
  });
}

function enumerate(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(', ');
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown;
}
