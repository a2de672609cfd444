// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { Metrics } from '@busbar/core/metrics';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import type { HostDriver, HostDriverConfig } from '../driver/host-driver.ts';
import { readInventory } from '../inventory/read.ts';
import type { AgentFile, HypervisorFile } from './config.ts';

export interface HostDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
}

/** What the configuration says this host can do. */
export interface OpenHost {
  /** Undefined on a witness. */
  readonly driver: HostDriver | undefined;
  readonly readInventory: () => Promise<HostInventory>;
}

/** The driver is loaded on demand: a witness must not need libvirt's libraries. */
export async function openHost(file: AgentFile, deps: HostDeps): Promise<OpenHost> {
  const open: OpenHost = { driver: undefined, readInventory: () => readInventory('/') };
  if (file.role === 'witness') return open;
  const { openHostDriver } = await import('../driver/open.ts');
  return { ...open, driver: openHostDriver(driverConfig(file), deps) };
}

function driverConfig({
  libvirt,
  stateDir,
  runDir,
  logDir,
  storage,
  pretendTopology,
}: HypervisorFile): HostDriverConfig {
  const common = { uri: libvirt.uri, stateDir, runDir, logDir, pretendTopology };
  if (storage.driver === 'dir') return { ...common, rbd: null, dir: storage.path };
  const { monitors, user, keyFile } = storage;
  return { ...common, rbd: { monitors, user, keyFile } };
}
