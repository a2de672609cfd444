// SPDX-License-Identifier: Apache-2.0
import type { Epoch, VmId } from '@busbar/core/ids';
import type { DomainDisk, DomainNic, DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import {
  CpuPolicy,
  DiskBus,
  DiskCache,
  Firmware,
  Hugepages,
  MachineType,
  NicModel,
  WatchdogAction,
} from '@busbar/proto/gen/busbar/v1/vm';
import type { StartRequest } from './host-driver.ts';

/** Small valid pieces for tests; each takes what the test cares about. */

export function testSpec(spec: Partial<DomainSpec> = {}): DomainSpec {
  return {
    vcpus: 1,
    topology: { sockets: 1, cores: 1, threads: 1 },
    cpuModel: '',
    memoryBytes: 32n * 1024n * 1024n,
    machineType: MachineType.Q35,
    firmware: Firmware.BIOS,
    disks: [],
    nics: [],
    serialConsole: true,
    guestAgent: false,
    watchdog: WatchdogAction.UNSPECIFIED,
    cloudInit: undefined,
    specRevision: 7n,
    placement: undefined,
    cpuPolicy: CpuPolicy.SHARED,
    realtimePriority: 0,
    ioThreads: 0,
    hugepages: Hugepages.HUGEPAGES_NONE,
    memoryLocked: false,
    guestNuma: false,
    diskAccess: undefined,
    ...spec,
  };
}

export function fileDisk(path: string, disk: Partial<DomainDisk> = {}): DomainDisk {
  return {
    name: 'root',
    volumeId: '5d2c0c39-41f5-4c53-9d10-0f7f1b1a0001',
    source: { $case: 'file', value: { path } },
    bus: DiskBus.VIRTIO,
    cache: DiskCache.NONE,
    bootOrder: 1,
    readOnly: false,
    growToBytes: 0n,
    ...disk,
  };
}

export function rbdDisk(pool: string, image: string, disk: Partial<DomainDisk> = {}): DomainDisk {
  return { ...fileDisk('', disk), source: { $case: 'rbd', value: { pool, image } } };
}

export function testNic(nic: Partial<DomainNic> = {}): DomainNic {
  return {
    name: 'lan',
    macAddress: '52:54:00:12:34:56',
    model: NicModel.VIRTIO,
    bridgeKind: BridgeKind.LINUX,
    bridge: 'br0',
    vlanTag: 0,
    trunkVlans: [],
    bootOrder: 0,
    ...nic,
  };
}

export function startRequest(n: number, spec: Partial<DomainSpec> = {}, epoch = 1n): StartRequest {
  const vmId = `6695eb01-f6a4-4304-89aa-${n.toString(16).padStart(12, '0')}` as VmId;
  return { vmId, name: `vm-${n}`, epoch: epoch as Epoch, domain: testSpec(spec) };
}
