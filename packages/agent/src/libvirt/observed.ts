// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { VmId } from '@busbar/core/ids';
import type { ObservedPlacement } from '@busbar/proto/gen/busbar/v1/vm';
import { observedPlacement } from '../domain/tuning-xml.ts';
import { parseXml } from '../domain/xml.ts';

/** Reads of a listing at most: a host may have hundreds of domains, and each costs a call of a millisecond. */
const READS_PER_LISTING = 16;
/** Nobody turns knobs by hand that often; with hundreds of domains it takes minutes to get around. */
const READ_AGAIN_MS = 5000;

interface Known {
  readonly placement: ObservedPlacement | undefined;
  readonly atMs: number;
}

/**
 * What libvirt gives each domain, as last read. A domain is read when it comes up (or is found by a new agent) and then in
 * turn with the others, a few with each listing.
 */
export class ObservedPlacements {
  readonly #clock: Clock;
  #known = new Map<string, Known>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  of(vmId: VmId, epoch: bigint): ObservedPlacement | undefined {
    return this.#known.get(keyOf(vmId, epoch))?.placement;
  }

  /** `read` gives a domain's live XML, or null when it is gone. What cannot be read now stays as it was known. */
  async refresh(
    domains: readonly { readonly vmId: VmId; readonly epoch: bigint }[],
    read: (vmId: VmId) => Promise<string | null>,
  ): Promise<void> {
    const nowMs = this.#clock.nowMs();
    this.#known = new Map(
      domains.flatMap(({ vmId, epoch }) => {
        const known = this.#known.get(keyOf(vmId, epoch));
        return known === undefined ? [] : [[keyOf(vmId, epoch), known]];
      }),
    );
    const age = (key: string) => nowMs - (this.#known.get(key)?.atMs ?? Number.NEGATIVE_INFINITY);
    const due = domains
      .map(({ vmId, epoch }) => ({ vmId, key: keyOf(vmId, epoch) }))
      .filter(({ key }) => age(key) >= READ_AGAIN_MS)
      .toSorted((a, b) => age(b.key) - age(a.key))
      .slice(0, READS_PER_LISTING);
    for (const { vmId, key } of due) {
      try {
        const xml = await read(vmId);
        this.#known.set(key, { placement: xml === null ? undefined : observedPlacement(parseXml(xml)), atMs: nowMs });
      } catch (error) {
        // The listing itself succeeded; without the hypervisor the next one tells.
        if (error instanceof BusbarError && error.reason.startsWith('HYPERVISOR_')) return;
        throw error;
      }
    }
  }
}

function keyOf(vmId: VmId, epoch: bigint): string {
  return `${vmId}/${epoch}`;
}
