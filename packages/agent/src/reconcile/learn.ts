// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import { EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { DomainEnd, DomainObservation } from '../driver/host-driver.ts';
import type { Desired } from './desired.ts';
import { describeEnd, type End, ended, isOver, max, NO_MEMORY, remembered, type VmMemory } from './memory.ts';
import { NO_TRACK, type Observation, type VmTrack } from './track.ts';

/**
 * Turns what was listed and told into what is known of a VM. The hard question is when an absent
 * domain is over, because whoever hears "ended" may start the VM elsewhere:
 *
 * - It was there and is gone: it is over. Only the reason may still be on its way (events come
 *   beside listings), and the reason decides whether HA restarts it, so it is waited for shortly.
 * - It was never seen (the start timed out, or the agent was restarted while it was under way): the
 *   call may still sit in a hypervisor that was hung. It is over when it stays away from listings
 *   for a while *after* the hypervisor answers again.
 * - It was started in a former boot of the host: it is over.
 *
 * In all cases it counts as there while the kernel has a QEMU of it, whatever the hypervisor says (strays.ts).
 */
const REASON_MAY_COME_MS = 1000;
/** Longer than libvirt takes from accepting a start to showing the domain, by an order of magnitude. */
const START_MAY_APPEAR_MS = 5000;

export interface Known {
  readonly memory: VmMemory;
  readonly track: VmTrack;
  readonly domain: DomainObservation | undefined;
  /** Whether the listing may be acted upon for this VM. */
  readonly usable: boolean;
  readonly note: string;
  readonly wakeAtMs: number;
}

export interface Sources {
  readonly desired: Desired | undefined;
  readonly memory: ReadonlyMap<VmId, VmMemory>;
  readonly tracks: ReadonlyMap<VmId, VmTrack>;
  readonly observation: Observation | undefined;
  readonly ends: readonly DomainEnd[];
}

export function learn(input: Sources, vmId: VmId): Known {
  const { observation } = input;
  let memory = input.memory.get(vmId) ?? NO_MEMORY;
  let track = input.tracks.get(vmId) ?? NO_TRACK;
  let domain = observation?.domains.find((candidate) => candidate.vmId === vmId);
  let wakeAtMs = Number.POSITIVE_INFINITY;
  const note =
    domain !== undefined && domain.epoch <= memory.endedEpoch ? `${domain.name} came up after it had ended` : '';
  // Until the controllers said what they want, they may still ask about any epoch.
  const asked = (epoch: bigint) => input.desired === undefined || input.desired.vms.get(vmId)?.epoch === epoch;

  for (const end of input.ends) {
    if (end.vmId !== vmId) continue;
    // The listing began after the end was told: what it has lives, and the event was a late one of an earlier epoch.
    if (domain?.epoch === end.epoch) continue;
    memory = ended(memory, end.epoch, describe(end, track), asked(end.epoch));
  }

  const fresh = observation?.fresh === true && observation.step > track.listAfter;
  // In a stale picture, what is known to be over is left out.
  if (!fresh && domain !== undefined && domain.epoch <= memory.endedEpoch) domain = undefined;
  const usable = fresh && track.busy === undefined;

  if (usable && domain !== undefined) {
    memory = remembered(memory, domain.epoch);
    track = { ...track, seenEpoch: max(domain.epoch, track.seenEpoch) };
  }
  if (isOver(memory) || domain?.epoch === memory.startedEpoch) {
    if (usable) track = { ...track, absentSinceMs: undefined, startError: undefined, formerBoot: false };
  } else if (!usable) {
    // A hypervisor that does not answer proves nothing: the wait begins anew.
    if (observation?.fresh !== true) track = { ...track, absentSinceMs: undefined };
  } else {
    const absentSinceMs = track.absentSinceMs ?? observation.begunAtMs;
    const waitMs = track.seenEpoch >= memory.startedEpoch ? REASON_MAY_COME_MS : START_MAY_APPEAR_MS;
    const end = conclude(memory, track, observation.begunAtMs - absentSinceMs >= waitMs);
    if (end === undefined) {
      track = { ...track, absentSinceMs };
      wakeAtMs = absentSinceMs + waitMs;
    } else {
      memory = ended(memory, memory.startedEpoch, end, asked(memory.startedEpoch));
      track = { ...track, absentSinceMs: undefined, startError: undefined, formerBoot: false, destroy: undefined };
    }
  }
  return { memory, track, domain, usable, note, wakeAtMs };
}

/** How the absent started epoch ended; undefined while that is open. */
function conclude(memory: VmMemory, track: VmTrack, waitedEnough: boolean): End | undefined {
  const { destroy, startError } = track;
  if (destroy?.done === true && destroy.epoch === memory.startedEpoch) {
    return { reason: EndReason.DESTROYED, message: destroy.why };
  }
  if (startError?.definite === true) return { reason: EndReason.START_FAILED, message: startError.message };
  if (track.formerBoot) return { reason: EndReason.VANISHED, message: 'the host was rebooted' };
  if (!waitedEnough) return undefined;
  if (startError !== undefined) {
    return { reason: EndReason.START_FAILED, message: `${startError.message}; it has not come up since` };
  }
  return { reason: EndReason.VANISHED, message: 'it is gone and the agent did not see it end' };
}

function describe(end: DomainEnd, track: VmTrack): End {
  const ours = end.reason === 'destroyed' && track.destroy?.epoch === end.epoch;
  return { reason: describeEnd(end.reason), message: ours ? track.destroy.why : end.message };
}
