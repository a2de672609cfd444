// SPDX-License-Identifier: Apache-2.0
import { type Clock, withDeadline } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import { HostInventory } from '@busbar/proto/gen/busbar/v1/host';

const CHECK_EVERY_MS = 30_000;
/** After a failure, or while something is missing that will come, so that a host that just booted is complete soon. */
const CHECK_AGAIN_MS = 1000;
const DEADLINE_MS = 20_000;

export interface InventoryOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  read(): Promise<HostInventory>;
  /** False while a part is missing that is to be expected, such as the versions of a hypervisor that does not answer yet. */
  isComplete(inventory: HostInventory): boolean;
  onChange(): void;
}

/** Reads the inventory now and then and tells when it changed. A failed read keeps the last one. */
export class InventoryWatch {
  readonly #options: InventoryOptions;
  #inventory: HostInventory | undefined;
  #encoded = '';
  #timer: Disposable | undefined;
  #stopped = false;

  constructor(options: InventoryOptions) {
    this.#options = options;
  }

  get inventory(): HostInventory | undefined {
    return this.#inventory;
  }

  start(): void {
    void this.#check();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.[Symbol.dispose]();
  }

  async #check(): Promise<void> {
    const { clock, logger } = this.#options;
    let againMs = CHECK_EVERY_MS;
    try {
      const inventory = await withDeadline(clock, DEADLINE_MS, 'reading the inventory', () => this.#options.read());
      this.#take(inventory);
      if (!this.#options.isComplete(inventory)) againMs = CHECK_AGAIN_MS;
    } catch (error) {
      if (!this.#stopped) logger.warn({ err: error }, 'inventory not read');
      againMs = CHECK_AGAIN_MS;
    }
    if (!this.#stopped) this.#timer = clock.timer(againMs, () => void this.#check());
  }

  #take(inventory: HostInventory): void {
    const encoded = JSON.stringify(HostInventory.toJSON(inventory));
    if (this.#stopped || encoded === this.#encoded) return;
    this.#encoded = encoded;
    this.#inventory = inventory;
    this.#options.onChange();
  }
}
