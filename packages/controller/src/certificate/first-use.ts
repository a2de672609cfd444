// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { ClusterStore } from '../store/cluster-store.ts';
import type { ClusterView } from '../view/view.ts';
import { planFirstUse } from './line.ts';

/** After a store that did not answer, or a lost race. */
const RETRY_MS = 2_000;

interface FirstUseDeps {
  readonly store: Pick<ClusterStore, 'txn'>;
  readonly view: ClusterView;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Writes down that a renewed certificate is in use, which ends the one before it (line.ts). Any controller that saw it does,
 * beside the call: nobody waits for it, and what is not written now is written at the next use.
 */
export class FirstUses {
  readonly #deps: FirstUseDeps;
  /** Serial numbers of recorded certificates, so no more than there are of these. */
  readonly #seen = new Set<string>();
  #wake = () => {};

  constructor(deps: FirstUseDeps) {
    this.#deps = deps;
  }

  note(serial: string): void {
    this.#seen.add(serial);
    this.#wake();
  }

  /** Until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#deps;
    const ended = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    while (!signal.aborted) {
      const noted = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      if (this.#seen.size === 0) await Promise.race([noted, ended]);
      for (const serial of this.#seen) {
        try {
          await this.#write(serial);
        } catch (error) {
          logger.warn({ serial, err: error }, 'the first use of a renewed certificate cannot be recorded yet');
          await sleep(clock, RETRY_MS, signal).catch(() => {});
          break;
        }
      }
    }
  }

  async #write(serial: string): Promise<void> {
    const { store, view, clock } = this.#deps;
    const change = planFirstUse(view, serial, clock.wallTime());
    if (change === null) {
      this.#seen.delete(serial);
      return;
    }
    const { succeeded, revision } = await store.txn(change);
    // A lost race is looked at again, as the view has it then.
    await view.waitFor(revision);
    if (succeeded) this.#seen.delete(serial);
  }
}
