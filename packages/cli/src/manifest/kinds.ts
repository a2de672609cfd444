// SPDX-License-Identifier: Apache-2.0
/** The kinds of documents that `apply` takes, as shapes of the API's messages. */
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import type { NetworkSpec } from '@busbar/proto/gen/busbar/v1/network';
import {
  type CloudInit,
  CpuPolicy,
  type CpuSpec,
  type CpuTopology,
  DeviceNumaPolicy,
  type DeviceRequest,
  type Disk,
  DiskBus,
  DiskCache,
  Firmware,
  type HaSpec,
  Hugepages,
  IsolationPolicy,
  MachineType,
  type Nic,
  NicModel,
  type NumaCell,
  type NumaSpec,
  NumaTopology,
  type PlacementRule,
  PlacementRuleKind,
  type PlacementSpec,
  RunPolicy,
  SmtPolicy,
  type VmSpec,
  WatchdogAction,
} from '@busbar/proto/gen/busbar/v1/vm';
import type { VolumeSpec } from '@busbar/proto/gen/busbar/v1/volume';
import {
  bool,
  bytes,
  enumeration,
  innerName,
  int,
  list,
  map,
  ms,
  type ObjectShape,
  object,
  resourceName,
  string,
} from './shape.ts';

export const API_VERSION = 'busbar.v1';
export type Kind = 'Vm' | 'Volume' | 'Network';

export const vmSpec: ObjectShape = object<VmSpec>(
  {
    runPolicy: enumeration(RunPolicy),
    cpu: object<CpuSpec>(
      {
        vcpus: int(1, 512),
        topology: object<CpuTopology>({ sockets: int(0, 512), cores: int(0, 512), threads: int(0, 8) }),
        model: string,
        policy: enumeration(CpuPolicy),
        smtPolicy: enumeration(SmtPolicy),
        realtimePriority: int(0, 99),
        ioThreads: int(0, 16),
      },
      ['vcpus'],
    ),
    memoryBytes: bytes,
    machineType: enumeration(MachineType),
    firmware: enumeration(Firmware),
    disks: list(
      object<Disk>(
        {
          name: innerName,
          volume: string,
          image: string,
          sizeBytes: bytes,
          bus: enumeration(DiskBus),
          cache: enumeration(DiskCache),
          bootOrder: int(0, 32),
          readOnly: bool,
        },
        ['name'],
      ),
      'name',
    ),
    nics: list(
      object<Nic>(
        { name: innerName, network: string, macAddress: string, model: enumeration(NicModel), bootOrder: int(0, 32) },
        ['name', 'network'],
      ),
      'name',
    ),
    serialConsoleDisabled: bool,
    guestAgentDisabled: bool,
    watchdog: enumeration(WatchdogAction),
    cloudInit: object<CloudInit>({ userData: string, networkConfig: string, redacted: bool }),
    ha: object<HaSpec>({ enabled: bool, priority: int(0, 1000) }),
    isolationPolicy: enumeration(IsolationPolicy),
    placement: object<PlacementSpec>({
      hostSelector: map,
      pinnedHost: string,
      preferredHosts: list(string),
      antiAffinityGroup: string,
      rules: list(
        object<PlacementRule>({ group: string, kind: enumeration(PlacementRuleKind), soft: bool }, ['group', 'kind']),
      ),
    }),
    shutdownTimeoutMs: ms,
    hugepages: enumeration(Hugepages),
    memoryLocked: bool,
    numa: object<NumaSpec>({
      topology: enumeration(NumaTopology),
      cells: list(object<NumaCell>({ vcpus: int(1, 512), memoryBytes: bytes }, ['vcpus', 'memoryBytes'])),
      oneNodeRequired: bool,
    }),
    devices: list(
      object<DeviceRequest>({ class: resourceName, count: int(0, 16), numaPolicy: enumeration(DeviceNumaPolicy) }, [
        'class',
      ]),
      'class',
    ),
  },
  ['cpu', 'memoryBytes'],
);

export const volumeSpec: ObjectShape = object<VolumeSpec>({ sizeBytes: bytes, image: string });

export const networkSpec: ObjectShape = object<NetworkSpec>(
  { kind: enumeration(BridgeKind), bridge: string, vlanTag: int(0, 4094), trunkVlans: list(int(1, 4094)) },
  ['kind', 'bridge'],
);

interface Document {
  apiVersion: string;
  kind: string;
  name: string;
  labels: Record<string, string>;
  spec: unknown;
}

function document(spec: ObjectShape): ObjectShape {
  return object<Document>({ apiVersion: string, kind: string, name: resourceName, labels: map, spec }, [
    'apiVersion',
    'kind',
    'name',
    'spec',
  ]);
}

export const DOCUMENTS: Readonly<Record<Kind, ObjectShape>> = {
  Vm: document(vmSpec),
  Volume: document(volumeSpec),
  Network: document(networkSpec),
};
