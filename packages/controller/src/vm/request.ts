// SPDX-License-Identifier: Apache-2.0
import type { NetworkId, VmId } from '@busbar/core/ids';
import type { VmRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import {
  CpuPolicy,
  DeviceNumaPolicy,
  Hugepages,
  NumaTopology,
  PlacementRuleKind,
  type PlacementSpec,
  SmtPolicy,
} from '@busbar/proto/gen/busbar/v1/vm';
import type {
  DeviceNuma,
  GroupRule,
  GroupRuleKind,
  GuestNuma,
  HugepageMib,
  SmtPolicy as Smt,
  Vm,
} from '@busbar/scheduler/model';
import type { ClusterView } from '../view/view.ts';

/** A VM as placement sees it. What a record of an older version does not say is the default. Pure. */

const MIB = 1024n ** 2n;

const CPU_POLICIES: Readonly<Record<CpuPolicy, Vm['cpuPolicy']>> = {
  [CpuPolicy.UNSPECIFIED]: 'shared',
  [CpuPolicy.UNRECOGNIZED]: 'shared',
  [CpuPolicy.SHARED]: 'shared',
  [CpuPolicy.DEDICATED]: 'dedicated',
  [CpuPolicy.REALTIME]: 'realtime',
};
const SMT_POLICIES: Readonly<Record<SmtPolicy, Smt>> = {
  [SmtPolicy.UNSPECIFIED]: 'prefer',
  [SmtPolicy.UNRECOGNIZED]: 'prefer',
  [SmtPolicy.PREFER]: 'prefer',
  [SmtPolicy.ISOLATE]: 'isolate',
  [SmtPolicy.REQUIRE]: 'require',
};
const HUGEPAGES: Readonly<Record<Hugepages, HugepageMib>> = {
  [Hugepages.HUGEPAGES_UNSPECIFIED]: 0,
  [Hugepages.UNRECOGNIZED]: 0,
  [Hugepages.HUGEPAGES_NONE]: 0,
  [Hugepages.HUGEPAGES_2M]: 2,
  [Hugepages.HUGEPAGES_1G]: 1024,
};
const TOPOLOGIES: Readonly<Record<NumaTopology, GuestNuma>> = {
  [NumaTopology.UNSPECIFIED]: 'none',
  [NumaTopology.UNRECOGNIZED]: 'none',
  [NumaTopology.NONE]: 'none',
  [NumaTopology.AUTOMATIC]: 'automatic',
  [NumaTopology.EXPLICIT]: 'explicit',
};
const DEVICE_NUMA: Readonly<Record<DeviceNumaPolicy, DeviceNuma>> = {
  [DeviceNumaPolicy.UNSPECIFIED]: 'preferred',
  [DeviceNumaPolicy.UNRECOGNIZED]: 'preferred',
  [DeviceNumaPolicy.REQUIRED]: 'required',
  [DeviceNumaPolicy.PREFERRED]: 'preferred',
  [DeviceNumaPolicy.NONE]: 'none',
};
/** Of an unknown kind nothing can be kept. */
const RULE_KINDS: Readonly<Record<PlacementRuleKind, GroupRuleKind | null>> = {
  [PlacementRuleKind.UNSPECIFIED]: null,
  [PlacementRuleKind.UNRECOGNIZED]: null,
  [PlacementRuleKind.TOGETHER]: 'together',
  [PlacementRuleKind.APART]: 'apart',
  [PlacementRuleKind.PAIR]: 'pair',
};

export function requestOf(record: VmRecord, view: ClusterView): Vm {
  const { meta, spec } = record;
  const cpu = spec?.cpu;
  return {
    id: (meta?.id ?? '') as VmId,
    name: meta?.name ?? '',
    vcpus: cpu?.vcpus ?? 0,
    memoryMib: mib(spec?.memoryBytes ?? 0n),
    cpuPolicy: CPU_POLICIES[cpu?.policy ?? CpuPolicy.UNSPECIFIED],
    smt: SMT_POLICIES[cpu?.smtPolicy ?? SmtPolicy.UNSPECIFIED],
    ioThreads: cpu?.ioThreads ?? 0,
    guestNuma: TOPOLOGIES[spec?.numa?.topology ?? NumaTopology.UNSPECIFIED],
    cells: (spec?.numa?.cells ?? []).map(({ vcpus, memoryBytes }) => ({ vcpus, memoryMib: mib(memoryBytes) })),
    oneNodeRequired: spec?.numa?.oneNodeRequired ?? false,
    hugepageMib: HUGEPAGES[spec?.hugepages ?? Hugepages.HUGEPAGES_UNSPECIFIED],
    devices: (spec?.devices ?? []).map((one) => ({
      class: one.class,
      count: one.count || 1,
      numa: DEVICE_NUMA[one.numaPolicy],
    })),
    hostSelector: spec?.placement?.hostSelector ?? {},
    networks: (spec?.nics ?? []).map((nic) => ({
      id: nic.network as NetworkId,
      name: view.tables.network.get(nic.network)?.record.meta?.name ?? nic.network,
    })),
    rules: rulesOf(spec?.placement),
    pinnedHost: spec?.placement?.pinnedHost ?? '',
    preferredHosts: spec?.placement?.preferredHosts ?? [],
    ha: spec?.ha?.enabled ?? false,
    priority: spec?.ha?.priority ?? 0,
  };
}

function rulesOf(placement: PlacementSpec | undefined): readonly GroupRule[] {
  const rules = (placement?.rules ?? []).flatMap(({ group, kind, soft }): GroupRule[] => {
    const known = RULE_KINDS[kind];
    return known === null ? [] : [{ group, kind: known, soft }];
  });
  const group = placement?.antiAffinityGroup ?? '';
  if (group === '') return rules;
  // The short form is hard, whatever a rule of the same group says.
  return [
    ...rules.filter((rule) => rule.group !== group || rule.kind !== 'apart'),
    { group, kind: 'apart', soft: false },
  ];
}

/** Rounded up: what is given out is never more than there is. */
function mib(bytes: bigint): number {
  return Number((bytes + MIB - 1n) / MIB);
}
