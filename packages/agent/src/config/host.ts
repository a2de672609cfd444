// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import type { HostDriver } from '../driver/host-driver.ts';
import type { AgentFile } from './config.ts';

export interface HostDeps {
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What the configuration says this host can do. */
export interface OpenHost {
  /** Undefined on a witness. */
  readonly driver: HostDriver | undefined;
  readonly readInventory: () => Promise<HostInventory>;
}

/**
 * Makes the driver that the configuration asks for. Loaded on demand: a witness must not need
 * libvirt's libraries.
 */
export async function openHost(file: AgentFile, deps: HostDeps): Promise<OpenHost> {
  void file;
  void deps;
  return Promise.reject(new Error('not wired yet'));
}
