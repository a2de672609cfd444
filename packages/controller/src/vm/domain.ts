// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto';
import type { VolumeId } from '@busbar/core/ids';
import type { DiskAccess, DomainDisk, DomainNic, DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { VmRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import {
  type CloudInit,
  CpuPolicy,
  IsolationPolicy,
  NumaTopology,
  type Placement,
  RunPolicy,
  VmSpec,
} from '@busbar/proto/gen/busbar/v1/vm';
import type { StorageDriver } from '@busbar/storage/driver';
import type { ClusterView } from '../view/view.ts';
import { withoutDefaultNeeds } from './needs.ts';

/** The machine that an agent starts: every name resolved, nothing left to decide. Null when the spec is incomplete (a record of a newer version). */
export function domainOf(
  vm: VmRecord,
  revision: bigint,
  view: ClusterView,
  storage: Pick<StorageDriver, 'diskSource'>,
  cloudInit: CloudInit | undefined,
  placement: Placement | undefined,
  diskAccess: DiskAccess | undefined,
): DomainSpec | null {
  const { spec, meta } = vm;
  if (spec?.cpu === undefined || meta === undefined) return null;
  const topology = spec.cpu.topology;
  const isRealtime = spec.cpu.policy === CpuPolicy.REALTIME;
  const numa = spec.numa?.topology;
  const given = topology !== undefined && topology.sockets * topology.cores * topology.threads > 0;
  return {
    vcpus: spec.cpu.vcpus,
    topology: given ? topology : { sockets: 1, cores: spec.cpu.vcpus, threads: 1 },
    cpuModel: spec.cpu.model,
    memoryBytes: spec.memoryBytes,
    machineType: spec.machineType,
    firmware: spec.firmware,
    disks: spec.disks.map((disk): DomainDisk => {
      const volumeId = vm.diskVolumes[disk.name] ?? '';
      const source = storage.diskSource(volumeId as VolumeId);
      return {
        name: disk.name,
        volumeId,
        source:
          source.kind === 'rbd'
            ? { $case: 'rbd', value: { pool: source.pool, image: source.image } }
            : { $case: 'file', value: { path: source.path } },
        bus: disk.bus,
        cache: disk.cache,
        bootOrder: disk.bootOrder,
        readOnly: disk.readOnly,
        growToBytes: view.tables.volume.get(volumeId)?.record.growingToBytes ?? 0n,
      };
    }),
    nics: spec.nics.map((nic): DomainNic => {
      const network = view.tables.network.get(nic.network)?.record.spec;
      return {
        name: nic.name,
        macAddress: nic.macAddress,
        model: nic.model,
        bridgeKind: network?.kind ?? BridgeKind.LINUX,
        bridge: network?.bridge ?? '',
        vlanTag: network?.vlanTag ?? 0,
        trunkVlans: network?.trunkVlans ?? [],
        bootOrder: nic.bootOrder,
      };
    }),
    serialConsole: !spec.serialConsoleDisabled,
    guestAgent: !spec.guestAgentDisabled,
    watchdog: spec.watchdog,
    cloudInit:
      cloudInit === undefined
        ? undefined
        : {
            instanceId: meta.id,
            hostname: meta.name,
            userData: cloudInit.userData,
            networkConfig: cloudInit.networkConfig,
          },
    specRevision: revision,
    placement,
    cpuPolicy: spec.cpu.policy,
    realtimePriority: isRealtime ? spec.cpu.realtimePriority || 1 : 0,
    ioThreads: spec.cpu.ioThreads,
    hugepages: spec.hugepages,
    // What control depends on must not wait for a disk.
    memoryLocked: spec.memoryLocked || isRealtime,
    guestNuma: numa === NumaTopology.AUTOMATIC || numa === NumaTopology.EXPLICIT,
    diskAccess,
  };
}

/** Records are never changed in place, and every round asks for every VM's. */
const digests = new WeakMap<VmRecord, string>();

/** Digest of what a running guest would only get by a restart. Policies act at once and are left out. */
export function hardwareDigest(vm: VmRecord): string {
  if (vm.spec === undefined) return '';
  let digest = digests.get(vm);
  if (digest === undefined) {
    const hardware: VmSpec = {
      ...withoutDefaultNeeds(vm.spec),
      runPolicy: RunPolicy.UNSPECIFIED,
      isolationPolicy: IsolationPolicy.UNSPECIFIED,
      ha: undefined,
      placement: undefined,
      shutdownTimeoutMs: 0,
    };
    // The sealed text changes with the data, and without the seal key nobody can try guesses against the digest.
    const hash = createHash('sha256').update(VmSpec.encode(hardware).finish()).update(vm.sealedCloudInit);
    digest = hash.digest('hex').slice(0, 16);
    digests.set(vm, digest);
  }
  return digest;
}
