// SPDX-License-Identifier: Apache-2.0
import { type Clock, withDeadline } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import { domainStartFailed, hypervisorTimeout } from '../driver/refusals.ts';

export interface StartSteps {
  /** Asks libvirt to start; ends by itself some time after it was undone. */
  create(): Promise<void>;
  /** Ends what was started; by UUID, so whatever has it. */
  undo(): Promise<void>;
  /** Whether neither libvirt nor the kernel has anything of the VM. */
  isGone(): Promise<boolean>;
}

export interface StartLimits {
  readonly name: string;
  /** When the start is given up, e.g. because QEMU waits for storage. */
  readonly deadlineMs: number;
  /** How long undoing it may take. */
  readonly undoDeadlineMs: number;
}

/**
 * Starts, or gives up and undoes. Returns only when the undoing is over: it destroys by UUID, so whoever started the
 * next epoch meanwhile would lose that. DOMAIN_START_FAILED after a start that was given up means that nothing of it is
 * left; when that is not certain, the outcome is unknown (HYPERVISOR_TIMEOUT). Errors of `create` pass through.
 */
export async function startOrUndo(clock: Clock, limits: StartLimits, steps: StartSteps): Promise<void> {
  const { name, deadlineMs, undoDeadlineMs } = limits;
  const giving: { up?: Promise<unknown> } = {};
  const timer = clock.timer(deadlineMs, () => {
    // Resolves with why it failed; undefined when it worked.
    giving.up = withDeadline(clock, undoDeadlineMs, `undoing the start of ${name}`, () => steps.undo()).then(
      () => undefined,
      (error: unknown) => error ?? 'unknown',
    );
  });
  let failure: unknown;
  try {
    await steps.create();
  } catch (error) {
    failure = error ?? 'unknown';
  } finally {
    timer[Symbol.dispose]();
  }
  if (giving.up === undefined) {
    if (failure !== undefined) throw failure;
    return;
  }
  const undoFailure = await giving.up;
  // The driver's own words: libvirt is away, or did not tell what became of it.
  if (failure instanceof BusbarError && failure.reason.startsWith('HYPERVISOR_')) throw failure;
  const gone = undoFailure === undefined && (await steps.isGone().catch(() => false));
  if (gone) throw domainStartFailed(name, `it did not start within ${deadlineMs} ms`, failure);
  const why = undoFailure === undefined ? '' : ` (${errorChain(undoFailure)})`;
  throw hypervisorTimeout(`start ${name}, nor surely undo that${why},`, deadlineMs, failure);
}
