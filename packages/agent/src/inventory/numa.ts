// SPDX-License-Identifier: Apache-2.0
import { parseCpuList } from '@busbar/core/cpu-list';
import type { HugepagePool, NumaNode } from '@busbar/proto/gen/busbar/v1/host';
import type { Files } from './files.ts';
import { parseDistances, parseHugepageSize, parseMemory } from './parse.ts';

const NODES = ['sys', 'devices', 'system', 'node'] as const;
const CPUS = ['sys', 'devices', 'system', 'cpu'] as const;

export async function readOnlineCpus(files: Files): Promise<number[]> {
  const online = parseCpuList(await files.text(...CPUS, 'online'));
  if (online.length > 0) return online;
  return (await files.list(...CPUS)).flatMap((name) => /^cpu(\d+)$/.exec(name)?.[1] ?? []).map(Number);
}

export async function readIsolatedCpus(files: Files): Promise<number[]> {
  return parseCpuList(await files.text(...CPUS, 'isolated'));
}

/** At least one: a machine whose kernel knows no NUMA is one NUMA node with everything. */
export async function readNumaNodes(files: Files): Promise<NumaNode[]> {
  const online = new Set(await readOnlineCpus(files));
  const ids = (await files.list(...NODES))
    .flatMap((name) => /^node(\d+)$/.exec(name)?.[1] ?? [])
    .map(Number)
    .toSorted((a, b) => a - b);
  if (ids.length === 0) {
    const cpus = [...online].toSorted((a, b) => a - b);
    return [
      {
        id: 0,
        cpus,
        smtSiblingSets: await siblingSets(files, cpus),
        memoryBytes: parseMemory(await files.text('proc', 'meminfo'), 'MemTotal'),
        hugepages: await hugepages(files, ['sys', 'kernel', 'mm', 'hugepages']),
        distances: [10],
      },
    ];
  }
  return await Promise.all(
    ids.map(async (id) => {
      const node = [...NODES, `node${id}`];
      const cpus = parseCpuList(await files.text(...node, 'cpulist')).filter((cpu) => online.has(cpu));
      return {
        id,
        cpus,
        smtSiblingSets: await siblingSets(files, cpus),
        memoryBytes: parseMemory(await files.text(...node, 'meminfo'), 'MemTotal'),
        hugepages: await hugepages(files, [...node, 'hugepages']),
        distances: parseDistances(await files.text(...node, 'distance')),
      };
    }),
  );
}

/** One entry per core, also when it has one thread only. */
async function siblingSets(files: Files, cpus: readonly number[]): Promise<string[]> {
  const sets = new Set<string>();
  for (const cpu of cpus) {
    const siblings = parseCpuList(await files.text(...CPUS, `cpu${cpu}`, 'topology', 'thread_siblings_list'));
    sets.add((siblings.length === 0 ? [cpu] : siblings).join(','));
  }
  return [...sets];
}

async function hugepages(files: Files, directory: readonly string[]): Promise<HugepagePool[]> {
  const pools: HugepagePool[] = [];
  for (const name of await files.list(...directory)) {
    const pageSizeBytes = parseHugepageSize(name);
    if (pageSizeBytes === null) continue;
    const total = BigInt(await files.number([...directory, name, 'nr_hugepages'], 0));
    const free = BigInt(await files.number([...directory, name, 'free_hugepages'], 0));
    pools.push({ pageSizeBytes, total, free });
  }
  return pools.toSorted((a, b) => Number(a.pageSizeBytes - b.pageSizeBytes));
}
