// SPDX-License-Identifier: Apache-2.0
import { parseCpuList } from '@busbar/core/cpu-list';
import type { HostId, NetworkId } from '@busbar/core/ids';
import type { HostStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import {
  type DeviceClass,
  type HostInventory,
  HostRole,
  type HostSpec,
  HostState,
  type NumaNode as Reported,
} from '@busbar/proto/gen/busbar/v1/host';
import { type Device, type Host, NO_DOMAINS, type NumaNode } from '@busbar/scheduler/model';
import type { ClusterView } from '../view/view.ts';

/** The hosts as placement sees them: what their agents found, and what the user decided about them. Pure. */

const MIB = 1024n ** 2n;
/**
 * What a host may claim to be. Planning makes tables of these sizes, for all hosts at once: one that lies must not take the
 * leader's memory. The kernel's own limits on x86 are 8192 CPUs and 1024 NUMA nodes.
 */
const LIMITS = { cpus: 8192, numaNodes: 1024, memoryMib: 1024 ** 2 * 64 } as const;
const PCI_ADDRESS = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/;

export function schedulableHosts(view: ClusterView, isReporting: (host: string) => boolean): readonly Host[] {
  const networks = view.tables.network.sorted();
  return view.tables.host.sorted().flatMap((entry): Host[] => {
    const status = view.tables['host-status'].get(entry.id)?.record;
    if (status?.role !== HostRole.HYPERVISOR) return [];
    const { spec } = entry.record;
    const { inventory } = status;
    const bridges = new Set((inventory?.bridges ?? []).map((bridge) => `${bridge.kind}/${bridge.name}`));
    const reservedMib = Number((spec?.reservedMemoryBytes ?? 0n) / MIB);
    return [
      {
        id: entry.id as HostId,
        notSchedulable: whyNot(status, spec, isReporting(entry.id)),
        labels: entry.record.meta?.labels ?? {},
        domains: spec?.failureDomains ?? NO_DOMAINS,
        numaNodes: numaNodesOf(inventory),
        reservedCpus: spec?.reservedCpus ?? [],
        isolatedCpus: inventory?.isolatedCpus ?? [],
        ...(reservedMib === 0 ? {} : { reservedMemoryMib: reservedMib }),
        devices: devicesOf(inventory, spec?.deviceClasses ?? []),
        networks: new Set(
          networks
            .filter((network) => bridges.has(`${network.record.spec?.kind}/${network.record.spec?.bridge}`))
            .map((network) => network.id as NetworkId),
        ),
      },
    ];
  });
}

function whyNot(status: HostStatusRecord, spec: HostSpec | undefined, reporting: boolean): string {
  if (status.state !== HostState.READY) return status.message || status.state.replace('HOST_STATE_', '').toLowerCase();
  if (spec?.unschedulable === true) return 'unschedulable';
  return reporting ? '' : 'its agent has not reported to the leader yet';
}

function numaNodesOf(inventory: HostInventory | undefined): readonly NumaNode[] {
  const nodes = (inventory?.numaNodes ?? []).filter(({ id }) => id >= 0 && id < LIMITS.numaNodes);
  if (nodes.length > 0) return disjoint(nodes.map(numaNodeOf));
  // An agent that found no NUMA nodes: the host is one.
  return [
    {
      id: 0,
      cpus: Array.from({ length: clamp(inventory?.cpu?.onlineCpus ?? 0, LIMITS.cpus) }, (_, cpu) => cpu),
      smtSiblings: [],
      memoryMib: mibOf(inventory?.memoryBytes ?? 0n),
      hugepages: [],
      distances: [],
    },
  ];
}

function clamp(value: number, max: number): number {
  return Math.max(0, Math.min(value, max));
}

function mibOf(bytes: bigint): number {
  return clamp(Number(bytes / MIB), LIMITS.memoryMib);
}

/** A host that names a NUMA node or a CPU twice is not believed the second time: nothing may be given out twice. */
function disjoint(nodes: readonly NumaNode[]): readonly NumaNode[] {
  const seen = { ids: new Set<number>(), cpus: new Set<number>() };
  const kept = nodes.flatMap((node): NumaNode[] => {
    if (seen.ids.has(node.id)) return [];
    seen.ids.add(node.id);
    const cpus = node.cpus.filter((cpu) => !seen.cpus.has(cpu) && seen.cpus.add(cpu));
    return [cpus.length === node.cpus.length ? node : { ...node, cpus, smtSiblings: [] }];
  });
  return kept.toSorted((a, b) => a.id - b.id);
}

function numaNodeOf(node: Reported): NumaNode {
  const here = new Set(node.cpus);
  return {
    id: node.id,
    cpus: node.cpus.filter((cpu) => cpu >= 0 && cpu < LIMITS.cpus).toSorted((a, b) => a - b),
    smtSiblings: node.smtSiblingSets
      .map((set) => parseCpuList(set).filter((cpu) => here.has(cpu)))
      .filter((set) => set.length > 1),
    memoryMib: mibOf(node.memoryBytes),
    hugepages: node.hugepages
      .filter((pool) => pool.pageSizeBytes >= MIB)
      .map((pool) => {
        const sizeMib = Math.max(1, mibOf(pool.pageSizeBytes));
        // No more than the memory that they are made of.
        return { sizeMib, pages: clamp(Number(pool.total), Math.floor(mibOf(node.memoryBytes) / sizeMib)) };
      }),
    distances: node.distances,
  };
}

/** Only what can be passed through (it has an IOMMU group) and belongs to a class; the first class that names it has it. */
function devicesOf(inventory: HostInventory | undefined, classes: readonly DeviceClass[]): readonly Device[] {
  if (classes.length === 0) return [];
  return (inventory?.pciDevices ?? []).flatMap(({ address, vendorProduct, numaNode, iommuGroup }): Device[] => {
    const of = classes.find(({ devices }) => devices.includes(address) || devices.includes(vendorProduct));
    if (of === undefined || iommuGroup < 0 || !PCI_ADDRESS.test(address)) return [];
    return [{ address, class: of.name, numaNode: numaNode < 0 ? null : numaNode }];
  });
}
