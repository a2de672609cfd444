// SPDX-License-Identifier: Apache-2.0
import { type Clock, withDeadline } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import type { BootId, VmId } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import { NO_POSITION } from './desired.ts';
import type { Memory, MemoryStore, VmMemory } from './memory.ts';

/** An fsync that takes longer is a disk that is dying; starts wait for it, so nobody may wait for ever. */
const SAVE_DEADLINE_MS = 10_000;
/** Pause before a failed save is tried again without anybody asking. */
const SAVE_AGAIN_MS = 5000;

export interface KeeperOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly store: MemoryStore;
  readonly bootId: BootId;
  /** The problem came or went. */
  onProblemChanged(): void;
}

/**
 * The memory as it is now, and its way to disk. One save at a time; whoever asks while one is under
 * way is served by the next, which writes the newest state. A full or broken disk is a problem that
 * forbids starts until a save succeeds; it never stops the agent from leading, destroying, reporting.
 */
export class MemoryKeeper {
  readonly #options: KeeperOptions;
  #memory: Memory;
  #formerBoot: BootId | undefined;
  #dirty = false;
  #writing: Promise<void> | undefined;
  #unreadable = '';
  #unwritable = '';
  #again: Disposable | undefined;
  #stopped = false;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#memory = { bootId: options.bootId, accepted: NO_POSITION, storeRevision: 0n, vms: new Map() };
  }

  get memory(): Memory {
    return this.#memory;
  }

  /** Why nothing may be started; empty when the memory works. */
  get problem(): string {
    return this.#unreadable || this.#unwritable;
  }

  /** True when the memory was written in a former boot of the host. */
  get rebooted(): boolean {
    return this.#formerBoot !== undefined && this.#formerBoot !== this.#options.bootId;
  }

  async load(): Promise<void> {
    const { clock, store, logger, bootId } = this.#options;
    try {
      const memory = await withDeadline(clock, SAVE_DEADLINE_MS, 'reading the memory', () => store.load());
      if (memory === undefined) return;
      this.#formerBoot = memory.bootId;
      this.#memory = { ...memory, bootId };
    } catch (error) {
      this.#unreadable = errorChain(error);
      logger.error({ err: error }, 'memory unreadable: nothing will be started');
    }
  }

  /** Takes over new content; it reaches the disk soon, or at once through `flush`. */
  update(change: Partial<Pick<Memory, 'accepted' | 'storeRevision' | 'vms'>>): void {
    this.#memory = { ...this.#memory, ...change };
    this.#dirty = true;
  }

  updateVm(vmId: VmId, memory: VmMemory): void {
    this.update({ vms: new Map(this.#memory.vms).set(vmId, memory) });
  }

  /** Saves in the background. */
  save(): void {
    this.flush().catch(() => {}); // told through `problem`, tried again by timer
  }

  /** Resolves when everything known at the call is on disk. */
  async flush(): Promise<void> {
    // What could not be read is not overwritten: it is the only evidence of what was started.
    if (this.#unreadable !== '') throw broken(this.#unreadable);
    while (this.#dirty || this.#writing !== undefined) {
      if (this.#stopped) throw broken('the agent stops');
      this.#writing ??= this.#write();
      const writing = this.#writing;
      try {
        await withDeadline(this.#options.clock, SAVE_DEADLINE_MS, 'writing the memory', () => writing);
      } catch (error) {
        this.#failed(error);
        throw broken(errorChain(error));
      }
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#again?.[Symbol.dispose]();
  }

  async #write(): Promise<void> {
    this.#dirty = false;
    try {
      await Promise.resolve(); // so that a store that throws at once finds `#writing` set
      await this.#options.store.save(this.#memory);
      this.#setProblem('');
    } catch (error) {
      this.#dirty = true;
      throw error;
    } finally {
      this.#writing = undefined;
    }
  }

  #failed(error: unknown): void {
    this.#setProblem(`the agent's memory cannot be written: ${errorChain(error)}`);
    if (this.#again !== undefined || this.#stopped) return;
    this.#again = this.#options.clock.timer(SAVE_AGAIN_MS, () => {
      this.#again = undefined;
      this.save();
    });
  }

  #setProblem(problem: string): void {
    if (problem === this.#unwritable) return;
    this.#unwritable = problem;
    if (problem === '') this.#options.logger.info({}, 'memory writable again');
    else this.#options.logger.error({ problem }, 'nothing will be started');
    this.#options.onProblemChanged();
  }
}

function broken(message: string): BusbarError {
  return new BusbarError({ kind: 'unavailable', reason: 'AGENT_MEMORY_UNAVAILABLE', message });
}
