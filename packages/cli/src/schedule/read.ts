// SPDX-License-Identifier: Apache-2.0
/**
 * Files of `busbar schedule`: hosts, VMs and policy, as people write them, to the scheduler's model. Nothing is kept for a host
 * and nothing over-committed unless the files say so: what they say a host has is what its VMs get.
 */
import type { HostId, NetworkId, VmId } from '@busbar/core/ids';
import {
  DEFAULT_POLICY,
  type Host,
  NO_DOMAINS,
  type NumaNode,
  type PlacementPolicy,
  type Vm,
} from '@busbar/scheduler/model';
import type { z } from 'zod';
import {
  type HostEntry,
  hostEntry,
  MEMORY,
  type pages,
  policyFile,
  releaseEntry,
  type VmEntry,
  vmEntry,
  withMemory,
} from './fields.ts';
import { assertUnique, check, problem } from './problems.ts';

export type Request = { readonly kind: 'place'; readonly vm: Vm } | { readonly kind: 'release'; readonly name: string };

export function readHosts(text: string, file: string): readonly Host[] {
  const entries = listOf(parseJson(text, file), 'hosts', file);
  const hosts = entries.flatMap((entry, index) => {
    const path = `hosts[${index}]`;
    return hostsOf(check(withMemory(hostEntry), entry, file, path), file, path);
  });
  assertUnique(
    hosts.map(({ id }) => id),
    file,
    'hosts',
  );
  return hosts;
}

export function readRequests(text: string, file: string): readonly Request[] {
  const entries = listOf(parseJson(text, file), 'vms', file);
  const requests = entries.flatMap((entry, index): readonly Request[] => {
    const path = `vms[${index}]`;
    if (typeof entry === 'object' && entry !== null && 'release' in entry) {
      return [{ kind: 'release', name: check(releaseEntry, entry, file, path).release }];
    }
    return vmsOf(check(withMemory(vmEntry), entry, file, path), file, path).map((vm) => ({ kind: 'place', vm }));
  });
  const present = new Set<string>();
  for (const request of requests) {
    if (request.kind === 'release') {
      if (!present.delete(request.name)) {
        throw problem(
          file,
          'vms',
          `releases "${request.name}", which is not there then`,
          'the name of a VM that comes before',
        );
      }
    } else if (present.has(request.vm.name)) {
      throw problem(file, 'vms', `names "${request.vm.name}" twice`, 'a name of its own for each VM');
    } else present.add(request.vm.name);
  }
  return requests;
}

export function readPolicy(text: string | null, file: string): PlacementPolicy {
  const given = text === null ? {} : check(policyFile, parseJson(text, file), file, '');
  return {
    hostReservedMemoryMib: given.hostReservedMemory ?? 0,
    vmOverheadMib: given.vmOverhead ?? 0,
    vcpuOvercommit: given.vcpuOvercommit ?? 1,
    prefer: given.prefer ?? 'pack',
    survive: given.survive ?? DEFAULT_POLICY.survive,
  };
}

// ---------------------------------------------------------------------------------------------------------------- hosts

function hostsOf(entry: HostEntry, file: string, path: string): readonly Host[] {
  const numaNodes = nodesOf(entry, file, path);
  const online = new Set(numaNodes.flatMap(({ cpus }) => cpus));
  for (const key of ['isolatedCpus', 'reservedCpus'] as const) {
    const missing = (entry[key] ?? []).filter((cpu) => !online.has(cpu));
    if (missing.length > 0)
      throw problem(file, `${path}.${key}`, `names CPU ${missing.join(', ')}`, 'CPUs that the host has');
  }
  const domainsOf = entry.failureDomains ?? {};
  const one = (id: string): Host => ({
    id: id as HostId,
    notSchedulable: entry.unschedulable === true ? 'unschedulable' : '',
    labels: entry.labels ?? {},
    domains: {
      rack: domainsOf.rack ?? NO_DOMAINS.rack,
      powerFeed: domainsOf.powerFeed ?? NO_DOMAINS.powerFeed,
      ringSegment: domainsOf.ringSegment ?? NO_DOMAINS.ringSegment,
    },
    numaNodes,
    reservedCpus: entry.reservedCpus ?? [],
    isolatedCpus: entry.isolatedCpus ?? [],
    ...(entry.reservedMemory !== undefined && { reservedMemoryMib: entry.reservedMemory }),
    devices: (entry.devices ?? []).map((each) => ({ ...each, numaNode: each.numaNode ?? null })),
    networks: new Set((entry.networks ?? []) as NetworkId[]),
  });
  return numbered(entry).map(one);
}

function nodesOf(entry: HostEntry, file: string, path: string): readonly NumaNode[] {
  if (typeof entry.numaNodes === 'object') {
    for (const key of ['cpus', 'memory', 'threadsPerCore', 'hugepages'] as const) {
      if (entry[key] !== undefined)
        throw problem(file, `${path}.${key}`, 'is given twice', `either ${key} or numaNodes with their own`);
    }
    const nodes = entry.numaNodes.map(
      (node, index): NumaNode => ({
        id: node.id ?? index,
        cpus: node.cpus,
        smtSiblings: node.smtSiblings ?? [],
        memoryMib: node.memory,
        hugepages: poolsOf(node.hugepages),
        distances: node.distances ?? [],
      }),
    );
    const all = nodes.flatMap(({ cpus }) => cpus);
    if (new Set(all).size < all.length)
      throw problem(file, `${path}.numaNodes`, 'share CPUs', 'CPUs that are in one node only');
    if (new Set(nodes.map(({ id }) => id)).size < nodes.length)
      throw problem(file, `${path}.numaNodes`, 'share an id', 'ids of their own');
    return nodes.toSorted((a, b) => a.id - b.id);
  }
  if (entry.cpus === undefined)
    throw problem(file, `${path}.cpus`, 'is missing', 'a number of CPUs, or a list of numaNodes');
  if (entry.memory === undefined)
    throw problem(file, `${path}.memory`, 'is missing', `${MEMORY}, or a list of numaNodes`);
  const count = entry.numaNodes ?? 1;
  const threads = entry.threadsPerCore ?? 1;
  const cores = entry.cpus / threads / count;
  if (!Number.isInteger(cores)) {
    throw problem(file, `${path}.cpus`, `is ${entry.cpus}`, `a multiple of ${threads * count} (threads × NUMA nodes)`);
  }
  const memoryMib = Math.floor(entry.memory / count);
  return Array.from({ length: count }, (_, id): NumaNode => {
    const firsts = Array.from({ length: cores }, (_unused, i) => id * cores + i);
    // As Linux numbers them: the first threads of all cores, then the second ones.
    const siblings = firsts.map((cpu) => (threads === 2 ? [cpu, cpu + count * cores] : [cpu]));
    return {
      id,
      cpus: siblings.flat().toSorted((a, b) => a - b),
      smtSiblings: threads === 2 ? siblings : [],
      memoryMib,
      hugepages: poolsOf(entry.hugepages),
      distances: [],
    };
  });
}

function poolsOf(given: z.infer<typeof pages> | undefined): NumaNode['hugepages'] {
  return [
    { sizeMib: 2, pages: given?.['2M'] ?? 0 },
    { sizeMib: 1024, pages: given?.['1G'] ?? 0 },
  ];
}

// ------------------------------------------------------------------------------------------------------------------ VMs

function vmsOf(entry: VmEntry, file: string, path: string): readonly Vm[] {
  const cells = (entry.cells ?? []).map((cell) => ({ vcpus: cell.vcpus, memoryMib: cell.memory }));
  const guestNuma = entry.numa ?? (cells.length > 0 ? 'explicit' : 'none');
  if ((guestNuma === 'explicit') !== cells.length > 0) {
    throw problem(
      file,
      `${path}.cells`,
      cells.length > 0 ? `are given with numa "${guestNuma}"` : 'are missing',
      'cells with numa "explicit", and only then',
    );
  }
  for (const [key, all, sum] of [
    ['vcpus', entry.vcpus, cells.reduce((total, cell) => total + cell.vcpus, 0)],
    ['memory', entry.memory, cells.reduce((total, cell) => total + cell.memoryMib, 0)],
  ] as const) {
    if (cells.length > 0 && all !== sum)
      throw problem(file, `${path}.cells`, `have ${key} ${sum} in all`, `${all}, as the VM`);
  }
  const hugepageMib = { none: 0, '2M': 2, '1G': 1024 }[entry.hugepages ?? 'none'] as Vm['hugepageMib'];
  if (hugepageMib > 0 && entry.memory % hugepageMib !== 0) {
    throw problem(file, `${path}.memory`, `is ${entry.memory} MiB`, `a multiple of the page size, ${hugepageMib} MiB`);
  }
  const rules = (entry.rules ?? []).map((each) => ({ ...each, soft: each.soft ?? false }));
  const apart = entry.antiAffinityGroup;
  return numbered(entry).map(
    (id): Vm => ({
      id: id as VmId,
      name: id,
      vcpus: entry.vcpus,
      memoryMib: entry.memory,
      cpuPolicy: entry.cpuPolicy ?? 'shared',
      smt: entry.smt ?? 'prefer',
      ioThreads: entry.ioThreads ?? 0,
      guestNuma,
      cells,
      oneNodeRequired: entry.oneNodeRequired ?? false,
      hugepageMib,
      devices: (entry.devices ?? []).map((each) => ({
        ...each,
        count: each.count ?? 1,
        numa: each.numa ?? 'preferred',
      })),
      hostSelector: entry.hostSelector ?? {},
      networks: (entry.networks ?? []).map((network) => ({ id: network as NetworkId, name: network })),
      rules: apart === undefined ? rules : [...rules, { group: apart, kind: 'apart', soft: false }],
      pinnedHost: entry.pinnedHost ?? '',
      preferredHosts: entry.preferredHosts ?? [],
      ha: entry.ha ?? false,
      priority: entry.priority ?? 0,
    }),
  );
}

/** NAME, or NAME-1 to NAME-COUNT with as many digits as the last one, so that they sort as they count. */
function numbered({
  name: base,
  count,
}: {
  readonly name: string;
  readonly count?: number | undefined;
}): readonly string[] {
  if (count === undefined) return [base];
  const digits = String(count).length;
  return Array.from({ length: count }, (_, i) => `${base}-${String(i + 1).padStart(digits, '0')}`);
}

/** One document, or one a line (jsonl). */
function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const lines = text.split('\n').filter((line) => line.trim() !== '');
    if (lines.length > 1 && lines[0]?.trimStart().startsWith('{') && isJson(lines[0])) {
      return lines.map((line, index) => {
        try {
          return JSON.parse(line) as unknown;
        } catch {
          throw problem(file, `line ${index + 1}`, 'is no JSON', 'one JSON object a line');
        }
      });
    }
    throw problem(
      file,
      'the file',
      `is no JSON (${cause instanceof Error ? cause.message : String(cause)})`,
      'a JSON document, or one JSON object a line',
    );
  }
}

function isJson(line: string): boolean {
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}

function listOf(value: unknown, key: 'hosts' | 'vms', file: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  const inner = typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;
  if (Array.isArray(inner)) return inner;
  // One object is a file of one line.
  if (typeof value === 'object' && value !== null && ('name' in value || 'release' in value)) return [value];
  throw problem(file, 'the file', `holds no list of ${key}`, `[…] or {"${key}": […]}`);
}
