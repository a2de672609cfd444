// SPDX-License-Identifier: Apache-2.0
/** `busbar host numa HOST`: which CPU belongs to whom, drawn. */
import { formatCpuList, parseCpuList } from '@busbar/core/cpu-list';
import type { Host, NumaNode } from '@busbar/proto/gen/busbar/v1/host';
import { SmtPolicy, type Vm } from '@busbar/proto/gen/busbar/v1/vm';
import type { Session } from '../cli/session.ts';
import { formatBytes } from '../output/format.ts';
import { print, tableStyle } from '../output/print.ts';
import { wrap } from '../output/wrap.ts';
import { listAll } from '../resource/resource.ts';
import { vms } from '../vm/resource.ts';
import { hosts } from './resource.ts';

/** What a CPU is used for. */
export type CpuUse =
  | { readonly use: 'free' | 'isolated' | 'reserved' }
  | { readonly use: 'vcpu' | 'emulator' | 'ioThread' | 'keptEmpty'; readonly vm: string };

export interface NodeMap {
  readonly id: number;
  readonly cpus: readonly ({ readonly cpu: number } & CpuUse)[];
  readonly memoryBytes: bigint;
  readonly usedBytes: bigint;
  readonly hugepages: readonly { readonly pageSizeBytes: bigint; readonly used: bigint; readonly total: bigint }[];
  /** VMs that float over the CPUs that nobody has for itself. */
  readonly floating: readonly { readonly vm: string; readonly vcpus: number }[];
}

export async function showNuma(session: Session, name: string): Promise<void> {
  session.doing = `draw the NUMA nodes of host ${name}`;
  const api = await session.api();
  const host = await hosts.get(api, name);
  const { items } = await listAll(api, vms, { host: name });
  const nodes = numaMap(host, items);
  await print(session, {
    json: () => ({ host: name, numaNodes: nodes.map(toJson) }),
    lines: () => nodes.map(toJson),
    table: () => drawNuma(name, nodes, tableStyle(session).width),
  });
}

const toJson = (node: NodeMap) => ({
  ...node,
  memoryBytes: String(node.memoryBytes),
  usedBytes: String(node.usedBytes),
  hugepages: node.hugepages.map(({ pageSizeBytes, used, total }) => ({
    pageSizeBytes: String(pageSizeBytes),
    used: String(used),
    total: String(total),
  })),
});

export function numaMap(host: Host, onHost: readonly Vm[]): readonly NodeMap[] {
  const inventory = host.status?.inventory;
  const nodes = inventory?.numaNodes ?? [];
  const use = new Map<number, CpuUse>();
  for (const cpu of inventory?.isolatedCpus ?? []) use.set(cpu, { use: 'isolated' });
  for (const cpu of host.spec?.reservedCpus ?? []) use.set(cpu, { use: 'reserved' });
  const siblings = new Map(
    nodes.flatMap(({ smtSiblingSets }) =>
      smtSiblingSets.flatMap((set) => parseCpuList(set).map((cpu, _, all) => [cpu, all] as const)),
    ),
  );
  for (const vm of onHost) {
    const name = vm.meta?.name ?? '';
    const placement = vm.status?.placement;
    for (const cell of placement?.cells ?? []) {
      for (const cpu of cell.cpus) {
        use.set(cpu, { use: 'vcpu', vm: name });
        if (vm.spec?.cpu?.smtPolicy !== SmtPolicy.ISOLATE) continue;
        for (const other of siblings.get(cpu) ?? []) if (other !== cpu) use.set(other, { use: 'keptEmpty', vm: name });
      }
    }
    for (const cpu of placement?.emulatorCpus ?? []) use.set(cpu, { use: 'emulator', vm: name });
    for (const cpu of placement?.ioThreadCpus ?? []) use.set(cpu, { use: 'ioThread', vm: name });
  }
  return nodes.map((node) => ({
    id: node.id,
    cpus: node.cpus.map((cpu) => ({ cpu, ...(use.get(cpu) ?? { use: 'free' as const }) })),
    memoryBytes: node.memoryBytes,
    usedBytes: usedBytes(node, onHost),
    hugepages: node.hugepages
      .filter(({ total }) => total > 0n)
      .map(({ pageSizeBytes, total, free }) => ({ pageSizeBytes, total, used: total - free })),
    floating: onHost.flatMap((vm) => {
      const vcpus = cellsOn(node, vm).reduce((sum, cell) => sum + (cell.cpus.length === 0 ? cell.vcpus : 0), 0);
      return vcpus > 0 ? [{ vm: vm.meta?.name ?? '', vcpus }] : [];
    }),
  }));
}

const cellsOn = (node: NumaNode, vm: Vm) =>
  (vm.status?.placement?.cells ?? []).filter(({ numaNode }) => numaNode === node.id);

/** What its VMs were given; what the kernel counts as used is another matter. */
function usedBytes(node: NumaNode, onHost: readonly Vm[]): bigint {
  return onHost.flatMap((vm) => cellsOn(node, vm)).reduce((sum, cell) => sum + cell.memoryBytes, 0n);
}

/** One letter for each VM with CPUs of its own; beyond these, "?". */
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';
/** A line of the picture: 64 CPUs in groups of four take 79 columns. */
const PER_LINE = 64;
const GROUP = 4;

const SIGNS = { free: '.', isolated: 'i', reserved: '#', keptEmpty: '_' } as const;

export function drawNuma(host: string, nodes: readonly NodeMap[], width: number): string {
  if (nodes.length === 0) return `host ${host} has not told its NUMA nodes yet\n`;
  const owners = [...new Set(nodes.flatMap(({ cpus }) => cpus.flatMap((cpu) => ('vm' in cpu ? [cpu.vm] : []))))];
  const letter = new Map(owners.map((vm, index) => [vm, LETTERS[index] ?? '?']));
  const sign = (cpu: CpuUse): string => {
    if (cpu.use === 'vcpu') return letter.get(cpu.vm) ?? '?';
    if (cpu.use === 'emulator' || cpu.use === 'ioThread') return (letter.get(cpu.vm) ?? '?').toLowerCase();
    return SIGNS[cpu.use];
  };
  const lines: string[] = [];
  for (const node of nodes) {
    const pages = node.hugepages
      .map(({ pageSizeBytes, used, total }) => `; pages of ${formatBytes(pageSizeBytes)}: ${used} of ${total} used`)
      .join('');
    lines.push(
      `NUMA node ${node.id}: ${formatBytes(node.usedBytes)} of ${formatBytes(node.memoryBytes)} given to VMs${pages}`,
    );
    for (let at = 0; at < node.cpus.length; at += PER_LINE) {
      const part = node.cpus.slice(at, at + PER_LINE);
      const groups = [];
      for (let i = 0; i < part.length; i += GROUP)
        groups.push(
          part
            .slice(i, i + GROUP)
            .map(sign)
            .join(''),
        );
      lines.push(`  CPU ${formatCpuList(part.map(({ cpu }) => cpu))}`, `    ${groups.join(' ')}`);
    }
    if (node.floating.length > 0) {
      const vcpus = node.floating.reduce((sum, each) => sum + each.vcpus, 0);
      const free = node.cpus.filter(({ use }) => use === 'free').length;
      const names = node.floating.map((each) => `${each.vm} (${each.vcpus})`).join(', ');
      lines.push(...wrap(`${vcpus} shared vCPUs on ${free} CPUs: ${names}`, width, 2, 4));
    }
    lines.push('');
  }
  for (const vm of owners) {
    const cpus = nodes.flatMap((node) => node.cpus.filter((cpu) => 'vm' in cpu && cpu.vm === vm));
    const of = (use: CpuUse['use']) => cpus.filter((cpu) => cpu.use === use).map(({ cpu }) => cpu);
    const extra = [...of('emulator'), ...of('ioThread')];
    const sign1 = letter.get(vm) ?? '?';
    const threads =
      extra.length === 0 ? '' : `; ${sign1.toLowerCase()} emulator and I/O threads on ${formatCpuList(extra)}`;
    lines.push(...wrap(`${sign1}  ${vm}: vCPUs on ${formatCpuList(of('vcpu'))}${threads}`, width, 0, 3));
  }
  const present = new Set(nodes.flatMap(({ cpus }) => cpus.map(({ use }) => use)));
  const legend = [
    present.has('free') && '.  shared, or free',
    present.has('isolated') && 'i  isolated, free: for realtime VMs',
    present.has('reserved') && '#  reserved for the host',
    present.has('keptEmpty') && '_  kept empty beside a vCPU that has its core alone',
  ].filter((text) => text !== false);
  return [...lines, ...legend].map((line) => `${line}\n`).join('');
}
