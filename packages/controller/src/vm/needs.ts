// SPDX-License-Identifier: Apache-2.0
import {
  CpuPolicy,
  type CpuSpec,
  DeviceNumaPolicy,
  type DeviceRequest,
  Hugepages,
  type NumaSpec,
  NumaTopology,
  PlacementRuleKind,
  SmtPolicy,
  type VmSpec,
} from '@busbar/proto/gen/busbar/v1/vm';
import { z } from 'zod';
import { count, NAME_RULE, oneOf } from '../api/validation.ts';
import { list, word } from '../bounds/schema.ts';

/** What a VM asks of a host's CPUs, memory and devices, and of the other VMs on it: limits and defaults. Pure. */

const MIB = 1024n ** 2n;
const TIB = 1024n ** 4n;
/** Guest NUMA nodes beyond this gain nothing on machines with at most 8 sockets. */
const CELLS_MAX = 16;
/** One for each virtio disk is all that can be of use. */
const IO_THREADS_MAX = 16;
/** PCI slots of the emulated machine that are left beside disks and NICs. */
const DEVICES_MAX = 16;
const RULES_MAX = 16;

/** Bytes of a page; null for the host's normal pages. */
export const PAGE_BYTES: Readonly<Record<Hugepages, bigint | null>> = {
  [Hugepages.HUGEPAGES_UNSPECIFIED]: null,
  [Hugepages.UNRECOGNIZED]: null,
  [Hugepages.HUGEPAGES_NONE]: null,
  [Hugepages.HUGEPAGES_2M]: 2n * MIB,
  [Hugepages.HUGEPAGES_1G]: 1024n * MIB,
};

export const cpuNeeds = {
  policy: oneOf(CpuPolicy),
  smtPolicy: oneOf(SmtPolicy),
  realtimePriority: count(0, 99),
  ioThreads: count(0, IO_THREADS_MAX),
};

const cell = z.object({
  vcpus: count(1, 512),
  memoryBytes: z
    .bigint()
    .min(MIB, '1 MiB to 16 TiB')
    .max(16n * TIB, '1 MiB to 16 TiB')
    .refine((v) => v % MIB === 0n, 'a multiple of 1 MiB'),
});

const device = z.object({
  class: word(63, /^[a-z]([-a-z0-9]*[a-z0-9])?$/, NAME_RULE),
  count: count(0, DEVICES_MAX),
  numaPolicy: oneOf(DeviceNumaPolicy),
});

export const needs = {
  hugepages: oneOf(Hugepages),
  memoryLocked: z.boolean(),
  numa: z
    .object({
      topology: oneOf(NumaTopology),
      cells: list(cell, 0, CELLS_MAX, `1 to ${CELLS_MAX} cells`),
      oneNodeRequired: z.boolean(),
    })
    .optional(),
  devices: list(device, 0, DEVICES_MAX, `at most ${DEVICES_MAX} classes`),
};

export const GROUP_RULE = "up to 63 letters, digits, '-', '_', '.'";
export const GROUP = /^[A-Za-z0-9][-A-Za-z0-9_.]{0,62}$/;

const GROUP_NAME_RULE = "1 to 63 letters, digits, '-', '_', '.'";
const rule = z.object({
  group: word(63, GROUP, GROUP_NAME_RULE),
  kind: oneOf(PlacementRuleKind).refine((v) => v !== PlacementRuleKind.UNSPECIFIED, 'one of TOGETHER, APART, PAIR'),
  soft: z.boolean(),
});

export const rules = list(rule, 0, RULES_MAX, `at most ${RULES_MAX} rules`).superRefine((all, context) => {
  const seen = new Set<string>();
  all.forEach(({ group, kind }, index) => {
    const key = `${kind}/${group}`;
    if (seen.has(key))
      context.addIssue({ code: 'custom', path: [index, 'group'], message: 'each group and kind once' });
    seen.add(key);
  });
});

type Issue = (path: readonly PropertyKey[], message: string) => void;

/** What only fits together. Called with a spec whose fields are sound by themselves. */
export function checkNeeds(spec: NeedsOf, issue: Issue): void {
  if (spec.cpu !== undefined) checkCpu(spec.cpu, issue);
  checkPages(spec, issue);
  checkNuma(spec, issue);
  checkDevices(spec.devices, issue);
  checkRules(spec, issue);
}

type NeedsOf = Pick<VmSpec, 'memoryBytes' | 'hugepages' | 'devices'> & {
  readonly cpu?: Pick<CpuSpec, 'vcpus' | 'policy' | 'smtPolicy' | 'realtimePriority'> | undefined;
  readonly numa?: NumaSpec | undefined;
  readonly placement?: Pick<NonNullable<VmSpec['placement']>, 'antiAffinityGroup' | 'rules'> | undefined;
};

function checkCpu(cpu: NonNullable<NeedsOf['cpu']>, issue: Issue): void {
  const isShared = cpu.policy === CpuPolicy.SHARED || cpu.policy === CpuPolicy.UNSPECIFIED;
  if (cpu.policy !== CpuPolicy.REALTIME && cpu.realtimePriority !== 0)
    issue(['cpu', 'realtimePriority'], '0, or 1 to 99 with cpu.policy REALTIME');
  if (isShared && (cpu.smtPolicy === SmtPolicy.ISOLATE || cpu.smtPolicy === SmtPolicy.REQUIRE))
    issue(['cpu', 'smtPolicy'], 'PREFER, or another with cpu.policy DEDICATED or REALTIME');
}

function checkPages({ hugepages, memoryBytes, numa }: NeedsOf, issue: Issue): void {
  const pageBytes = PAGE_BYTES[hugepages];
  if (pageBytes === null) return;
  const right = `a multiple of ${pageBytes / MIB} MiB, the page size that hugepages says`;
  if (memoryBytes % pageBytes !== 0n) issue(['memoryBytes'], right);
  numa?.cells.forEach((one, index) => {
    if (one.memoryBytes % pageBytes !== 0n) issue(['numa', 'cells', index, 'memoryBytes'], right);
  });
}

function checkNuma({ numa, cpu, memoryBytes }: NeedsOf, issue: Issue): void {
  if (numa === undefined) return;
  const { cells, topology } = numa;
  const explicit = topology === NumaTopology.EXPLICIT || (topology === NumaTopology.UNSPECIFIED && cells.length > 0);
  if (!explicit) {
    if (cells.length > 0) issue(['numa', 'cells'], 'no cells, or numa.topology EXPLICIT');
    return;
  }
  if (cells.length === 0) {
    issue(['numa', 'cells'], `1 to ${CELLS_MAX} cells with numa.topology EXPLICIT`);
    return;
  }
  const vcpus = cells.reduce((sum, one) => sum + one.vcpus, 0);
  if (cpu !== undefined && vcpus !== cpu.vcpus)
    issue(['numa', 'cells'], `cells whose vcpus add up to ${cpu.vcpus}, the VM's (they add up to ${vcpus})`);
  const bytes = cells.reduce((sum, one) => sum + one.memoryBytes, 0n);
  if (bytes !== memoryBytes)
    issue(['numa', 'cells'], `cells whose memoryBytes add up to ${memoryBytes}, the VM's (they add up to ${bytes})`);
  if (numa.oneNodeRequired && cells.length > 1)
    issue(['numa', 'oneNodeRequired'], `false, or one cell: each of the ${cells.length} is on a NUMA node of its own`);
}

function checkDevices(devices: readonly DeviceRequest[], issue: Issue): void {
  const seen = new Set<string>();
  devices.forEach((one, index) => {
    if (seen.has(one.class)) issue(['devices', index, 'class'], 'each class once, with its count');
    seen.add(one.class);
  });
  const all = devices.reduce((sum, one) => sum + (one.count || 1), 0);
  if (all > DEVICES_MAX) issue(['devices'], `at most ${DEVICES_MAX} devices in all (they are ${all})`);
}

/** Two hard rules that no host can obey. */
function checkRules({ placement }: NeedsOf, issue: Issue): void {
  if (placement === undefined) return;
  const together = placement.rules.filter(({ kind, soft }) => kind === PlacementRuleKind.TOGETHER && !soft);
  for (const { group } of together) {
    const against = placement.rules.findIndex(
      (one) => one.group === group && one.kind !== PlacementRuleKind.TOGETHER && !one.soft,
    );
    if (against >= 0)
      issue(['placement', 'rules', against, 'kind'], `TOGETHER alone, or soft: "${group}" has a hard rule TOGETHER`);
    if (placement.antiAffinityGroup === group)
      issue(['placement', 'antiAffinityGroup'], `another group: "${group}" has a hard rule TOGETHER`);
  }
}

export function cpuWithDefaults(given: CpuSpec): CpuSpec {
  const policy = given.policy === CpuPolicy.UNSPECIFIED ? CpuPolicy.SHARED : given.policy;
  return {
    ...given,
    policy,
    smtPolicy: given.smtPolicy === SmtPolicy.UNSPECIFIED ? SmtPolicy.PREFER : given.smtPolicy,
    realtimePriority: policy === CpuPolicy.REALTIME ? given.realtimePriority || 1 : given.realtimePriority,
  };
}

export function needsWithDefaults(given: VmSpec): Pick<VmSpec, 'hugepages' | 'numa' | 'devices'> {
  const numa = given.numa ?? { topology: NumaTopology.UNSPECIFIED, cells: [], oneNodeRequired: false };
  const unset = numa.cells.length > 0 ? NumaTopology.EXPLICIT : NumaTopology.NONE;
  return {
    hugepages: given.hugepages === Hugepages.HUGEPAGES_UNSPECIFIED ? Hugepages.HUGEPAGES_NONE : given.hugepages,
    numa: { ...numa, topology: numa.topology === NumaTopology.UNSPECIFIED ? unset : numa.topology },
    devices: given.devices.map((one) => ({
      ...one,
      count: one.count || 1,
      numaPolicy: one.numaPolicy === DeviceNumaPolicy.UNSPECIFIED ? DeviceNumaPolicy.PREFERRED : one.numaPolicy,
    })),
  };
}

/**
 * The spec with what is default left unset, as it was before these fields existed: so that a VM that runs since then does not
 * count as changed when its record is first written with the defaults.
 */
export function withoutDefaultNeeds(spec: VmSpec): VmSpec {
  const { cpu, numa } = spec;
  const plain = numa !== undefined && numa.topology === NumaTopology.NONE && !numa.oneNodeRequired;
  return {
    ...spec,
    cpu:
      cpu === undefined
        ? undefined
        : {
            ...cpu,
            policy: cpu.policy === CpuPolicy.SHARED ? CpuPolicy.UNSPECIFIED : cpu.policy,
            smtPolicy: cpu.smtPolicy === SmtPolicy.PREFER ? SmtPolicy.UNSPECIFIED : cpu.smtPolicy,
          },
    hugepages: spec.hugepages === Hugepages.HUGEPAGES_NONE ? Hugepages.HUGEPAGES_UNSPECIFIED : spec.hugepages,
    numa: plain ? undefined : numa,
  };
}
