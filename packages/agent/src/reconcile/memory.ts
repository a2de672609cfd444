// SPDX-License-Identifier: Apache-2.0
import type { BootId, VmId } from '@busbar/core/ids';
import { EndReason, type StatePosition } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { Desired } from './desired.ts';

/**
 * What an agent must not forget when it is restarted, because "an epoch starts at most once" rests
 * on it. Written by the reconciler alone, to one file; the record of a start is on disk before the
 * start is issued. Epochs only grow, so three numbers per VM say everything:
 * endedEpoch < startedEpoch means that an epoch was started and nobody saw it end yet.
 */
export interface VmMemory {
  /** The highest epoch ever assigned to this host or seen on it; a lower one is refused. */
  readonly highestEpoch: bigint;
  /** The newest epoch whose start was (about to be) issued here; 0 for none. It and all before never start again. */
  readonly startedEpoch: bigint;
  /** The newest epoch known to be over; it and all before must not run. */
  readonly endedEpoch: bigint;
  /** How `endedEpoch` ended; kept until the controllers list it no more. */
  readonly end: End | undefined;
}

export interface End {
  readonly reason: EndReason;
  readonly message: string;
}

/** All of it, as it is stored. */
export interface Memory {
  /** Of the boot in which it was written: after a reboot nothing that it calls started can still come up. */
  readonly bootId: BootId;
  /** So that a restarted agent does not accept the state of a deposed leader. */
  readonly accepted: StatePosition;
  /** The furthest that the cluster store was ever known to be. A leader whose store is less far has a restored one. */
  readonly storeRevision: bigint;
  readonly vms: ReadonlyMap<VmId, VmMemory>;
}

/** Where the memory is kept between runs. */
export interface MemoryStore {
  /** Undefined when there never was one; rejects when there is one that cannot be read: then nothing may start. */
  load(): Promise<Memory | undefined>;
  /** Resolves when it is safe on disk. Never called again before the former call settled. */
  save(memory: Memory): Promise<void>;
}

/** For tests and simulation: outlives the agents that use it, as a disk does. */
export class InMemoryStore implements MemoryStore {
  #memory: Memory | undefined;

  load(): Promise<Memory | undefined> {
    return Promise.resolve(this.#memory);
  }

  save(memory: Memory): Promise<void> {
    this.#memory = memory;
    return Promise.resolve();
  }
}

export const NO_MEMORY: VmMemory = { highestEpoch: 0n, startedEpoch: 0n, endedEpoch: 0n, end: undefined };

export function isOver(memory: VmMemory): boolean {
  return memory.endedEpoch >= memory.startedEpoch;
}

/** A domain of this epoch is there, however it came to be. */
export function remembered(memory: VmMemory, epoch: bigint): VmMemory {
  if (epoch <= memory.startedEpoch) return memory;
  return { ...memory, highestEpoch: max(memory.highestEpoch, epoch), startedEpoch: epoch };
}

/** `tell` is false when the controllers do not ask about this epoch any more. */
export function ended(memory: VmMemory, epoch: bigint, end: End, tell: boolean): VmMemory {
  if (epoch <= memory.endedEpoch) return memory;
  return { ...memory, highestEpoch: max(memory.highestEpoch, epoch), endedEpoch: epoch, end: tell ? end : undefined };
}

/** Raises the highest epochs to those of a newly accepted state and forgets the ends that it does not list. */
export function afterAccepting(vms: ReadonlyMap<VmId, VmMemory>, desired: Desired): Map<VmId, VmMemory> {
  const next = new Map<VmId, VmMemory>();
  for (const [vmId, memory] of vms) {
    const listed = desired.vms.get(vmId)?.epoch === memory.endedEpoch;
    next.set(vmId, memory.end === undefined || listed ? memory : { ...memory, end: undefined });
  }
  for (const [vmId, vm] of desired.vms) {
    const memory = next.get(vmId) ?? NO_MEMORY;
    if (memory.highestEpoch >= vm.epoch) continue;
    // Re-inserting keeps the map in order of last use, which is what `pruned` goes by.
    next.delete(vmId);
    next.set(vmId, { ...memory, highestEpoch: vm.epoch });
  }
  return next;
}

/** VMs that have left this host are remembered for as long as this many others have not come after them. */
const REMEMBERED_VMS = 10_000;

/** Bounds the memory: the position of the accepted state already refuses old orders; epochs are the second line. */
export function pruned(vms: ReadonlyMap<VmId, VmMemory>, keep: (vmId: VmId) => boolean): ReadonlyMap<VmId, VmMemory> {
  let surplus = vms.size - REMEMBERED_VMS;
  if (surplus <= 0) return vms;
  const next = new Map(vms);
  for (const [vmId, memory] of vms) {
    if (surplus <= 0) break;
    if (!isOver(memory) || memory.end !== undefined || keep(vmId)) continue;
    next.delete(vmId);
    surplus--;
  }
  return next;
}

export function describeEnd(reason: 'guest-shutdown' | 'destroyed' | 'crashed'): EndReason {
  switch (reason) {
    case 'guest-shutdown':
      return EndReason.GUEST_SHUTDOWN;
    case 'destroyed':
      return EndReason.DESTROYED;
    case 'crashed':
      return EndReason.CRASHED;
  }
}

export function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
