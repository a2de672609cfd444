// SPDX-License-Identifier: Apache-2.0
import type { Counter, Metrics } from '@busbar/core/metrics';
import type { DomainObservation } from '../driver/host-driver.ts';
import { AGENT_METRICS } from './metrics.ts';

/**
 * Counts what the listings show and whether an event led to it. Events are hints and may be lost; that the regular
 * listing finds things by itself is normal now and then, and a sign of an ill event stream when it is the rule.
 */
export class Discoveries {
  readonly #changes: Counter<'found_by'>;
  readonly #failures: Counter<never>;
  #hinted = false;
  #listingHinted = false;
  #former: ReadonlyMap<string, string> | undefined;

  constructor(metrics: Metrics) {
    this.#changes = metrics.counter(AGENT_METRICS.discoveries);
    this.#failures = metrics.counter(AGENT_METRICS.listFailures);
  }

  hinted(): void {
    this.#hinted = true;
  }

  /** A listing begins: it is owed to the hints up to now. One that comes meanwhile leads to the next, and to what this one shows. */
  listing(): void {
    this.#listingHinted = this.#hinted;
    this.#hinted = false;
  }

  listed(domains: readonly DomainObservation[]): void {
    const now = new Map(domains.map(({ vmId, epoch, state }) => [vmId as string, `${epoch}/${state}`]));
    const former = this.#former;
    this.#former = now;
    // The first listing shows what was there before this agent.
    if (former === undefined) return;
    const labels = { found_by: this.#listingHinted || this.#hinted ? 'event' : 'listing' };
    for (const id of new Set([...former.keys(), ...now.keys()]))
      if (former.get(id) !== now.get(id)) this.#changes.add(labels);
  }

  failed(): void {
    this.#failures.add({});
  }
}
