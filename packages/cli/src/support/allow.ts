// SPDX-License-Identifier: Apache-2.0
/**
 * What of each resource may stand in a support bundle. Everything that is not named is left out, so that a field that
 * somebody adds to the API later stays secret until it is named here. Never: cloud-init (passwords, keys).
 */
import type { Cluster } from '@busbar/proto/gen/busbar/v1/cluster';
import type { ErrorInfo, ResourceMeta, ResourceRef } from '@busbar/proto/gen/busbar/v1/common';
import type { Event } from '@busbar/proto/gen/busbar/v1/event';
import type { Host } from '@busbar/proto/gen/busbar/v1/host';
import type { Image } from '@busbar/proto/gen/busbar/v1/image';
import type { Network } from '@busbar/proto/gen/busbar/v1/network';
import type { Operation } from '@busbar/proto/gen/busbar/v1/operation';
import type { Vm } from '@busbar/proto/gen/busbar/v1/vm';
import type { Volume } from '@busbar/proto/gen/busbar/v1/volume';

type Leaf = string | number | bigint | boolean | Date;
type AllowValue<V> = V extends Leaf
  ? true
  : V extends readonly (infer E)[]
    ? AllowValue<E>
    : // Maps with the user's keys: labels, counts.
      string extends keyof V
      ? true
      : Allow<V>;
/** Messages have to be opened field by field: `true` is for single values and for maps. */
export type Allow<T> = { readonly [K in keyof T]?: AllowValue<NonNullable<T[K]>> };

const META: Allow<ResourceMeta> = {
  id: true,
  name: true,
  revision: true,
  createTime: true,
  updateTime: true,
  labels: true,
  deleting: true,
};
const REF: Allow<ResourceRef> = { kind: true, id: true, name: true };
const ERROR: Allow<ErrorInfo> = {
  reason: true,
  message: true,
  hint: true,
  fields: { field: true, problem: true, expected: true },
};

export const CLUSTER: Allow<Cluster> = {
  name: true,
  leader: true,
  leaderTerm: true,
  answeredBy: true,
  controllers: { host: true, address: true, leader: true },
  store: { healthy: true, message: true, revision: true, behind: true },
  storage: {
    healthy: true,
    driver: true,
    totalBytes: true,
    availableBytes: true,
    message: true,
    measureTime: true,
  },
  hostsByState: true,
  vmsByPhase: true,
  version: true,
  alarms: { code: true, severity: true, subject: true, message: true, hint: true, raiseTime: true },
};

export const HOST: Allow<Host> = {
  meta: META,
  spec: {
    unschedulable: true,
    reservedCpus: true,
    reservedMemoryBytes: true,
    failureDomains: { rack: true, powerFeed: true, ringSegment: true },
    deviceClasses: { name: true, devices: true },
  },
  status: {
    state: true,
    message: true,
    role: true,
    bootId: true,
    lastHeartbeatTime: true,
    runningVms: true,
    allocatedMemoryBytes: true,
    allocatedVcpus: true,
    leaseRemainingMs: true,
    inventory: {
      managementAddress: true,
      storageAddress: true,
      numaNodes: {
        id: true,
        cpus: true,
        smtSiblingSets: true,
        memoryBytes: true,
        hugepages: { pageSizeBytes: true, total: true, free: true },
        distances: true,
      },
      cpu: { model: true, vendor: true, libvirtModel: true, features: true, onlineCpus: true },
      isolatedCpus: true,
      memoryBytes: true,
      pciDevices: {
        address: true,
        vendorProduct: true,
        classCode: true,
        driver: true,
        numaNode: true,
        iommuGroup: true,
      },
      interfaces: {
        name: true,
        macAddress: true,
        linkUp: true,
        speedMbps: true,
        mtu: true,
        addresses: true,
        pciAddress: true,
      },
      bridges: { name: true, kind: true },
      kvmUsable: true,
      kvmMessage: true,
      versions: { agent: true, kernel: true, libvirt: true, qemu: true, os: true },
      pretendedTopology: { realCpus: true },
    },
  },
};

export const VM: Allow<Vm> = {
  meta: META,
  spec: {
    runPolicy: true,
    cpu: {
      vcpus: true,
      topology: { sockets: true, cores: true, threads: true },
      model: true,
      policy: true,
      smtPolicy: true,
      realtimePriority: true,
      ioThreads: true,
    },
    memoryBytes: true,
    hugepages: true,
    memoryLocked: true,
    numa: { topology: true, cells: { vcpus: true, memoryBytes: true }, oneNodeRequired: true },
    devices: { class: true, count: true, numaPolicy: true },
    machineType: true,
    firmware: true,
    disks: {
      name: true,
      volume: true,
      image: true,
      sizeBytes: true,
      bus: true,
      cache: true,
      bootOrder: true,
      readOnly: true,
    },
    nics: { name: true, network: true, macAddress: true, model: true, bootOrder: true },
    serialConsoleDisabled: true,
    guestAgentDisabled: true,
    watchdog: true,
    ha: { enabled: true, priority: true },
    isolationPolicy: true,
    placement: {
      hostSelector: true,
      pinnedHost: true,
      preferredHosts: true,
      antiAffinityGroup: true,
      rules: { group: true, kind: true, soft: true },
    },
    shutdownTimeoutMs: true,
  },
  status: {
    phase: true,
    message: true,
    host: true,
    epoch: true,
    disks: { name: true, volume: REF },
    startTime: true,
    restartNeeded: true,
    failedStarts: true,
    startedRevision: true,
    placement: {
      host: true,
      cells: { numaNode: true, vcpus: true, cpus: true, memoryBytes: true },
      emulatorCpus: true,
      ioThreadCpus: true,
      devices: { class: true, address: true, numaNode: true },
    },
    observedPlacement: {
      vcpuCpus: true,
      emulatorCpus: true,
      ioThreadCpus: true,
      numaNodes: true,
      realtimePriority: true,
      hugepageBytes: true,
      devices: true,
    },
    placementDrift: true,
  },
};

export const VOLUME: Allow<Volume> = {
  meta: META,
  spec: { sizeBytes: true, image: true },
  status: { phase: true, vm: REF, ownedByVm: true },
};

export const IMAGE: Allow<Image> = {
  meta: META,
  spec: { format: true, fileSizeBytes: true, sha256: true },
  status: { phase: true, virtualSizeBytes: true, allocatedBytes: true, sha256: true },
};

export const NETWORK: Allow<Network> = {
  meta: META,
  spec: { kind: true, bridge: true, vlanTag: true, trunkVlans: true },
  status: { hosts: true },
};

export const EVENT: Allow<Event> = {
  id: true,
  time: true,
  severity: true,
  reason: true,
  subject: REF,
  message: true,
  attributes: true,
  revision: true,
};

export const OPERATION: Allow<Operation> = {
  id: true,
  method: true,
  target: REF,
  state: true,
  progressPercent: true,
  steps: { name: true, state: true, startTime: true, endTime: true },
  message: true,
  error: ERROR,
  createTime: true,
  endTime: true,
  createdBy: true,
  requestId: true,
  cancelRequested: true,
  revision: true,
};
