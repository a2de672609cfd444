// SPDX-License-Identifier: Apache-2.0
import { unreachable } from '@busbar/core/assert';
import { type Clock, withDeadline } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import type { Epoch, VmId } from '@busbar/core/ids';
import { type Logger, withFields } from '@busbar/core/log';
import { HOST_DRIVER_REASONS, type HostDriver } from '../driver/host-driver.ts';
import type { Action } from './action.ts';
import type { MemoryKeeper } from './keeper.ts';
import { NO_MEMORY } from './memory.ts';
import { isStartable } from './plan.ts';
import type { VmTrack } from './track.ts';

/** Backstops behind the driver's own deadlines, so that a VM is never busy for ever. */
const DEADLINE_MS = { start: 75_000, destroy: 60_000, press: 20_000, grow: 15_000 } as const;
/** A QEMU that did not answer is asked again, as long as the controllers want it. */
const GROW_AGAIN_MS = 5_000;
/** A destroy is repeated until it works; the pause doubles from the first to the last value. */
const RETRY_MS = { first: 500, last: 10_000 } as const;

/**
 * The refusal after which the domain was certainly not started. Anything else leaves the outcome open, also that one is
 * there already: then a QEMU runs, or did a moment ago.
 */
const DEFINITE: string = HOST_DRIVER_REASONS.domainStartFailed;

export interface ExecuteDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly driver: HostDriver;
  readonly keeper: MemoryKeeper;
  /** Asked again right before the start is issued: it may have changed while the disk was slow. */
  mayStart(vmId: VmId, epoch: bigint): boolean;
  track(vmId: VmId): VmTrack;
  setTrack(vmId: VmId, track: VmTrack): void;
  nextStep(): number;
}

/** Runs one action and records in the VM's track and memory what came of it. Never rejects. */
export async function execute(given: ExecuteDeps, action: Action): Promise<void> {
  const { vmId, epoch } = action;
  const deps = { ...given, logger: withFields(given.logger, { vmId, epoch: String(epoch) }) };
  const beganMs = deps.clock.nowMs();
  deps.setTrack(vmId, { ...deps.track(vmId), busy: action.kind });
  deps.logger.info({ action: action.kind, why: 'why' in action ? action.why : '' }, 'action begins');
  switch (action.kind) {
    case 'start':
      await start(deps, action);
      break;
    case 'destroy':
      await destroy(deps, action);
      break;
    case 'press':
      await press(deps, action);
      break;
    case 'grow':
      await grow(deps, action);
      break;
    default:
      unreachable(action);
  }
  deps.logger.info({ action: action.kind, durationMs: Math.round(deps.clock.nowMs() - beganMs) }, 'action ends');
  deps.setTrack(vmId, { ...deps.track(vmId), busy: undefined, listAfter: deps.nextStep() });
}

/**
 * The record first, then the start: an agent that dies in between finds the record and not the
 * domain, and reports the epoch as ended; the other order could start it twice.
 */
async function start(deps: ExecuteDeps, { vmId, epoch, vm }: Action & { kind: 'start' }): Promise<void> {
  const { keeper, driver } = deps;
  const before = keeper.memory.vms.get(vmId) ?? NO_MEMORY;
  if (!isStartable(before, epoch)) return;
  keeper.updateVm(vmId, { ...before, highestEpoch: epoch, startedEpoch: epoch });
  deps.setTrack(vmId, {
    ...deps.track(vmId),
    startError: undefined,
    absentSinceMs: undefined,
    stop: undefined,
    destroy: undefined,
  });
  try {
    await keeper.flush();
  } catch {
    return unrecord(keeper, vmId, before.startedEpoch);
  }
  const { domain } = vm;
  if (domain === undefined || !deps.mayStart(vmId, epoch)) return unrecord(keeper, vmId, before.startedEpoch);
  try {
    const request = { vmId, name: vm.name, epoch: epoch as Epoch, domain };
    await withDeadline(deps.clock, DEADLINE_MS.start, `starting ${vm.name}`, () => driver.startDomain(request));
    deps.setTrack(vmId, { ...deps.track(vmId), seenEpoch: epoch });
  } catch (error) {
    const definite = error instanceof BusbarError && error.reason === DEFINITE;
    const message = errorChain(error);
    deps.logger.warn({ definite, err: error }, 'start failed');
    deps.setTrack(vmId, { ...deps.track(vmId), startError: { message, definite } });
  }
}

/** The start was never issued, so the epoch is still unused. */
function unrecord(keeper: MemoryKeeper, vmId: VmId, startedEpoch: bigint): void {
  keeper.updateVm(vmId, { ...(keeper.memory.vms.get(vmId) ?? NO_MEMORY), startedEpoch });
  keeper.save();
}

async function destroy(deps: ExecuteDeps, { vmId, epoch, why }: Action & { kind: 'destroy' }): Promise<void> {
  deps.setTrack(vmId, { ...deps.track(vmId), destroy: { epoch, why, done: false } });
  try {
    await withDeadline(deps.clock, DEADLINE_MS.destroy, `destroying ${vmId}`, () => deps.driver.destroyDomain(vmId));
    deps.setTrack(vmId, { ...deps.track(vmId), destroy: { epoch, why, done: true }, failures: 0, problem: '' });
  } catch (error) {
    const track = deps.track(vmId);
    const pauseMs = Math.min(RETRY_MS.last, RETRY_MS.first * 2 ** track.failures);
    const problem = `destroying it failed: ${errorChain(error)}`;
    deps.logger.warn({ err: error }, 'destroy failed');
    deps.setTrack(vmId, { ...track, failures: track.failures + 1, retryAtMs: deps.clock.nowMs() + pauseMs, problem });
  }
}

async function press(deps: ExecuteDeps, { vmId, epoch }: Action & { kind: 'press' }): Promise<void> {
  const nowMs = deps.clock.nowMs();
  const stop = deps.track(vmId).stop;
  deps.setTrack(vmId, {
    ...deps.track(vmId),
    stop: { epoch, begunAtMs: stop?.begunAtMs ?? nowMs, pressedAtMs: nowMs },
  });
  try {
    await withDeadline(deps.clock, DEADLINE_MS.press, `shutting down ${vmId}`, () => deps.driver.shutdownDomain(vmId));
  } catch (error) {
    // The next press, or the timeout that takes its power, is the retry.
    deps.logger.warn({ err: error }, 'shutdown request failed');
  }
}

/** Safe at any time and any number of times: the driver grows what is smaller and leaves the rest. */
async function grow(deps: ExecuteDeps, { vmId, epoch, disk }: Action & { kind: 'grow' }): Promise<void> {
  const { volumeId } = disk;
  try {
    const work = () => deps.driver.growDisk(vmId, disk);
    const has = await withDeadline(deps.clock, DEADLINE_MS.grow, `growing volume ${volumeId}`, work);
    const { sizes } = deps.track(vmId);
    const bytes = { ...(sizes.epoch === epoch ? sizes.bytes : {}), [volumeId]: has };
    deps.setTrack(vmId, { ...deps.track(vmId), sizes: { epoch, bytes }, growProblem: '' });
  } catch (error) {
    deps.logger.warn({ volumeId, err: error }, 'a disk was not grown');
    const growProblem = `volume ${volumeId} was not grown: ${errorChain(error)}`;
    deps.setTrack(vmId, { ...deps.track(vmId), growAtMs: deps.clock.nowMs() + GROW_AGAIN_MS, growProblem });
  }
}
