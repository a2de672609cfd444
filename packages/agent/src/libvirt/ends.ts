// SPDX-License-Identifier: Apache-2.0
import type { Epoch, VmId } from '@busbar/core/ids';
import type { DomainEnd } from '../driver/host-driver.ts';
import type { LibvirtEvent } from './ffi/methods.ts';
import { EVENT, endOf } from './words.ts';

/** Ends that wait to be taken; the oldest are forgotten, as the contract is a best effort. */
const LIMIT = 1000;

interface Seen {
  readonly epoch: Epoch;
  shutdownDetail: number | null;
  panicked: boolean;
  /** We take its power: whatever libvirt says of its end, that was it. */
  destroying: boolean;
  /** Its start has not returned: an end now is told by the failed start. */
  starting: boolean;
  stoppedDetail: number | null;
  ioError: string;
}

/** Follows each domain's events, so that its end can be told with its reason and epoch, once. */
export class Ends {
  readonly #seen = new Map<string, Seen>();
  #ends: DomainEnd[] = [];

  starting(vmId: VmId, epoch: Epoch): void {
    this.#seen.set(vmId, { ...fresh(epoch), starting: true });
  }

  /** It runs. An end that was told before this answer arrived counts now. */
  started(vmId: VmId): void {
    const seen = this.#seen.get(vmId);
    if (seen === undefined) return;
    seen.starting = false;
    if (seen.stoppedDetail !== null) this.#end(vmId, seen, seen.stoppedDetail);
  }

  startFailed(vmId: VmId): void {
    if (this.#seen.get(vmId)?.starting === true) this.#seen.delete(vmId);
  }

  /**
   * A list told what runs. With `eventsMissed` what is not in it ended unseen and is forgotten; else
   * its event is still on the way.
   */
  listed(domains: readonly { readonly vmId: VmId; readonly epoch: Epoch }[], eventsMissed: boolean): void {
    const present = new Set<string>(domains.map(({ vmId }) => vmId));
    for (const { vmId, epoch } of domains) {
      const seen = this.#seen.get(vmId);
      if (seen === undefined || (seen.epoch !== epoch && !seen.starting)) this.#seen.set(vmId, fresh(epoch));
    }
    if (!eventsMissed) return;
    for (const [vmId, seen] of this.#seen) {
      if (!present.has(vmId) && !seen.starting) this.#seen.delete(vmId);
    }
  }

  destroying(vmId: VmId): void {
    const seen = this.#seen.get(vmId);
    if (seen !== undefined) seen.destroying = true;
  }

  /** We ended it without libvirt: no event will tell. */
  killed(vmId: VmId): void {
    const seen = this.#seen.get(vmId);
    if (seen !== undefined) this.#push(vmId, seen, 'destroyed', 'QEMU was killed, as libvirt did not end it');
  }

  onEvent(event: LibvirtEvent): void {
    if (event.type === 'closed') return;
    const seen = this.#seen.get(event.uuid);
    if (seen === undefined) return;
    if (event.type === 'io-error') {
      const what = event.reason === 'enospc' ? 'no space left' : event.reason;
      seen.ioError = `I/O error on disk ${event.path}${what === '' ? '' : ` (${what})`}`;
    }
    if (event.type !== 'lifecycle') return;
    if (event.event === EVENT.shutdown) seen.shutdownDetail = event.detail;
    if (event.event === EVENT.crashed) seen.panicked = true;
    if (event.event !== EVENT.stopped) return;
    if (seen.starting) seen.stoppedDetail = event.detail;
    else this.#end(event.uuid as VmId, seen, event.detail);
  }

  /** What its disk said last; empty when nothing. */
  ioError(vmId: VmId): string {
    return this.#seen.get(vmId)?.ioError ?? '';
  }

  take(): readonly DomainEnd[] {
    const ends = this.#ends;
    this.#ends = [];
    return ends;
  }

  #end(vmId: VmId, seen: Seen, detail: number): void {
    if (seen.destroying) this.#push(vmId, seen, 'destroyed', 'its power was taken');
    else {
      const { reason, message } = endOf(detail, seen);
      this.#push(vmId, seen, reason, message);
    }
  }

  #push(vmId: VmId, seen: Seen, reason: DomainEnd['reason'], message: string): void {
    this.#seen.delete(vmId);
    this.#ends.push({ vmId, epoch: seen.epoch, reason, message });
    if (this.#ends.length > LIMIT) this.#ends.shift();
  }
}

function fresh(epoch: Epoch): Seen {
  return {
    epoch,
    shutdownDetail: null,
    panicked: false,
    destroying: false,
    starting: false,
    stoppedDetail: null,
    ioError: '',
  };
}
