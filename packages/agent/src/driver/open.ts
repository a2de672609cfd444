// SPDX-License-Identifier: Apache-2.0
import { type LibvirtDriverDeps, LibvirtHostDriver } from '../libvirt/driver.ts';
import type { HostDriver, HostDriverConfig } from './host-driver.ts';

/** The real driver. It connects when it is started. */
export function openHostDriver(config: HostDriverConfig, deps: LibvirtDriverDeps): HostDriver {
  return new LibvirtHostDriver(config, deps);
}
