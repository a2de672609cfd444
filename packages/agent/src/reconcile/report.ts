// SPDX-License-Identifier: Apache-2.0

import type { VmId } from '@busbar/core/ids';
import type { DesiredVm } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { type DomainReport, DomainState, EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { DomainObservation } from '../driver/host-driver.ts';
import type { Action } from './action.ts';
import { isOver, type VmMemory } from './memory.ts';
import type { VmTrack } from './track.ts';

/** Everything there is to say about one VM after planning. */
export interface VmPlan {
  readonly vmId: VmId;
  readonly assigned: DesiredVm | undefined;
  readonly memory: VmMemory;
  readonly track: VmTrack;
  /** The domain as last listed, if it is still believed to be there. */
  readonly domain: DomainObservation | undefined;
  /** False until domains were listed once. */
  readonly listed: boolean;
  readonly action: Action | undefined;
  /** It would be started if starts were allowed. */
  readonly waits: boolean;
  readonly note: string;
  readonly wakeAtMs: number;
}

/**
 * What the controllers are told of one VM: the domain that is there, a start that is open, and the
 * end that they have not yet told us to forget. An epoch is named once at most.
 */
export function describeDomains(vm: VmPlan): readonly DomainReport[] {
  const { vmId, memory, track, domain, action } = vm;
  const lines: DomainReport[] = [];
  // Of the domain that is there alone.
  const placementOf = (epoch: bigint) => (domain?.epoch === epoch ? domain.placement : undefined);
  const say = (epoch: bigint, state: DomainState, message: string, endReason: EndReason = EndReason.UNSPECIFIED) => {
    if (lines.some((line) => line.epoch === epoch)) return;
    const diskSizes = track.sizes.epoch === epoch ? { ...track.sizes.bytes } : {};
    lines.push({ vmId, epoch, state, endReason, message, placement: placementOf(epoch), diskSizes });
  };
  const { startedEpoch } = memory;
  if (track.busy === 'start') say(startedEpoch, DomainState.STARTING, '');
  if (domain !== undefined) {
    const stopping =
      track.stop?.epoch === domain.epoch || track.destroy?.epoch === domain.epoch || action?.kind === 'destroy';
    const message = [domain.message, track.problem, track.growProblem].filter((text) => text !== '').join('; ');
    if (stopping || domain.state === 'shutting-down') say(domain.epoch, DomainState.STOPPING, message);
    else say(domain.epoch, domain.state === 'paused' ? DomainState.PAUSED : DomainState.RUNNING, message);
  }
  if (!isOver(memory)) {
    if (!vm.listed) say(startedEpoch, DomainState.RUNNING, 'not confirmed: domains were not listed yet');
    else if (track.seenEpoch < startedEpoch)
      say(startedEpoch, DomainState.STARTING, 'not there; its start may still take effect');
    else if (track.absentSinceMs === undefined) say(startedEpoch, DomainState.RUNNING, '');
    else say(startedEpoch, DomainState.STOPPING, 'it is gone; the reason may still come');
  }
  if (action?.kind === 'start') say(action.epoch, DomainState.STARTING, '');
  if (memory.end !== undefined) say(memory.endedEpoch, DomainState.ENDED, memory.end.message, memory.end.reason);
  return lines;
}
