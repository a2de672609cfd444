// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync } from 'node:fs';
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { Metrics } from '@busbar/core/metrics';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import type { HostDriver, HostDriverConfig } from '../driver/host-driver.ts';
import { readInventory } from '../inventory/read.ts';
import type { AgentFile, HypervisorFile } from './config.ts';
import { assertFreeUids, DEFAULT_UID_POOL, type IdFiles } from './uid-pool.ts';

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
  assertFreeUids(file.libvirt.uidPool ?? DEFAULT_UID_POOL, readIdFiles());
  const { openHostDriver } = await import('../driver/open.ts');
  return { ...open, driver: openHostDriver(driverConfig(file), deps) };
}

function readIdFiles(): IdFiles {
  const read = (name: string) => {
    const path = `/etc/${name}`;
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  };
  return { passwd: read('passwd'), group: read('group'), subuid: read('subuid'), subgid: read('subgid') };
}

function driverConfig({
  libvirt,
  stateDir,
  runDir,
  logDir,
  storage,
  pretendTopology,
}: HypervisorFile): HostDriverConfig {
  const uidPool = libvirt.uidPool ?? DEFAULT_UID_POOL;
  const common = { uri: libvirt.uri, uidPool, stateDir, runDir, logDir, pretendTopology };
  if (storage.driver === 'dir') return { ...common, rbd: null, dir: storage.path };
  const { monitors, user, keyFile } = storage;
  const shared = user === undefined || keyFile === undefined ? null : { user, keyFile };
  return { ...common, rbd: { monitors, shared } };
}
