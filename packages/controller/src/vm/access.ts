// SPDX-License-Identifier: Apache-2.0
/**
 * The keys that open the disks of VMs, for the leader: asked of the pool for the start that the records hold, told to the
 * host of that start and nobody else, and taken back when it is over (ADR 0056).
 *
 * In memory only: nothing here is written to the store. A leader that takes over asks again and gets the same key. Taking back
 * is safe whenever it comes, also late and from a deposed leader: the records said that this epoch is over, and an epoch never
 * runs twice. What is not taken back because every leader died in between goes with the next start, or with the VM.
 */
import type { Clock } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { Epoch, ImageId, VmId, VolumeId } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import type { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import type { AccessGrant, AccessRequest, StorageDriver } from '@busbar/storage/driver';
import type { ClusterView } from '../view/view.ts';
import { isOnHost } from './plan.ts';

/** As often as an agent would be asked to try again; a pool that does not answer has deadlines of its own. */
const RETRY_MS = 1_000;
/** A leader that begins asks for hundreds at once; the monitors take one commit after the other (some 10 ms each). */
const CALLS_AT_ONCE = 8;
/** Starts before the present one whose key may be left over: every leader that could have taken it back died. */
const LEFT_OVER = 3n;

/** Undefined: opened without a key. Null: not known yet, the start has to wait. */
export type AccessOf = (vmId: string, vm: VmRecord, status: VmStatusRecord) => AccessGrant | undefined | null;

type Granted =
  | { readonly state: 'asking' }
  | { readonly state: 'failed'; readonly atMs: number; readonly why: string }
  | { readonly state: 'known'; readonly grant: AccessGrant | undefined };

export interface VmAccessDeps {
  readonly view: ClusterView;
  readonly storage: Pick<StorageDriver, 'grantAccess' | 'revokeAccess'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class VmAccess {
  readonly #deps: VmAccessDeps;
  readonly #wake: () => void;
  readonly #signal: AbortSignal;
  /** By VM, for the newest epoch that was asked for. */
  readonly #granted = new Map<string, { readonly epoch: bigint; readonly is: Granted }>();
  /** By VM, the newest epoch that is certainly closed. */
  readonly #closed = new Map<string, bigint>();
  readonly #closing = new Set<string>();
  #calls = 0;

  /** `wake` is called when something became known. */
  constructor(deps: VmAccessDeps, signal: AbortSignal, wake: () => void) {
    this.#deps = deps;
    this.#signal = signal;
    this.#wake = wake;
  }

  /** Asks at once when it is not known yet. Only a VM that is being started needs its key: QEMU has it from then on. */
  readonly of: AccessOf = (vmId, vm, status) => {
    if (status.phase !== VmPhase.STARTING || vm.spec === undefined || vm.spec.disks.length === 0) return undefined;
    const known = this.#granted.get(vmId);
    if (known?.epoch === status.epoch) {
      if (known.is.state === 'known') return known.is.grant;
      if (known.is.state === 'asking') return null;
      if (this.#deps.clock.nowMs() - known.is.atMs < RETRY_MS) return null;
    }
    if (this.#calls >= CALLS_AT_ONCE || this.#signal.aborted) return null;
    void this.#ask(vmId, vm, status.epoch as Epoch, known?.is.state === 'failed' ? known.is.why : '');
    return null;
  };

  /** Why a start waits for its key; empty when it does not. */
  whyNot(vmId: string): string {
    const is = this.#granted.get(vmId)?.is;
    return is?.state === 'failed' ? is.why : '';
  }

  /** Takes back what belongs to starts that are over, a few at a time; the next round goes on. */
  takeBack(): void {
    const { tables } = this.#deps.view;
    for (const known of [this.#granted, this.#closed])
      for (const vmId of known.keys()) if (tables.vm.get(vmId) === undefined) known.delete(vmId);
    for (const { id, record } of tables['vm-status'].sorted()) {
      if (this.#calls >= CALLS_AT_ONCE || this.#signal.aborted) return;
      if (record.epoch === 0n || isOnHost(record) || this.#closing.has(id)) continue;
      if ((this.#closed.get(id) ?? 0n) >= record.epoch) continue;
      void this.#close(id, record.epoch as Epoch);
    }
  }

  async #ask(vmId: string, vm: VmRecord, epoch: Epoch, toldBefore: string): Promise<void> {
    const { storage, clock, logger } = this.#deps;
    const put = (is: Granted) => this.#granted.set(vmId, { epoch, is });
    put({ state: 'asking' });
    this.#calls += 1;
    try {
      // First, so that of two starts in a row there is never more than one key, whoever dies in between.
      await storage.revokeAccess(vmId as VmId, formerEpochs(epoch));
      const grant = await storage.grantAccess(this.#request(vmId, vm, epoch));
      put({ state: 'known', grant: grant ?? undefined });
    } catch (error) {
      const why = errorChain(error);
      put({ state: 'failed', atMs: clock.nowMs(), why });
      if (why !== toldBefore) {
        logger.warn({ vmId, vm: vm.meta?.name, epoch, err: error }, 'a start waits for the key of its disks');
      }
    } finally {
      this.#calls -= 1;
      this.#wake();
    }
  }

  async #close(vmId: string, epoch: Epoch): Promise<void> {
    const { storage, logger } = this.#deps;
    this.#closing.add(vmId);
    this.#calls += 1;
    try {
      await storage.revokeAccess(vmId as VmId, [epoch]);
      this.#closed.set(vmId, epoch);
    } catch (error) {
      logger.debug({ vmId, epoch, err: error }, 'the key of a start that is over is still there; tried again');
    } finally {
      this.#calls -= 1;
      this.#closing.delete(vmId);
    }
  }

  #request(vmId: string, vm: VmRecord, epoch: Epoch): AccessRequest {
    const disks = (vm.spec?.disks ?? []).map((disk) => {
      const volumeId = (vm.diskVolumes[disk.name] ?? '') as VolumeId;
      const image = this.#deps.view.tables.volume.get(volumeId)?.record.spec?.image ?? '';
      return { volumeId, imageId: image === '' ? null : (image as ImageId) };
    });
    return { vmId: vmId as VmId, epoch, disks };
  }
}

/** Also of a VM that is deleted: its last starts, whose keys its leaders may have left behind. */
export function lastEpochs(epoch: bigint): readonly Epoch[] {
  return epoch === 0n ? [] : [...formerEpochs(epoch as Epoch), epoch as Epoch];
}

function formerEpochs(epoch: Epoch): readonly Epoch[] {
  const former: Epoch[] = [];
  for (let each = epoch - LEFT_OVER > 0n ? epoch - LEFT_OVER : 1n; each < epoch; each++) former.push(each as Epoch);
  return former;
}
