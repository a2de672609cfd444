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
import { z } from 'zod';
import { CliError, EXIT, type FieldProblem } from '../cli/exit.ts';
import { parseBytes } from '../manifest/units.ts';

const NAME = 'a name of 1 to 253 characters';
const name = z.string(NAME).min(1, NAME).max(253, NAME);
const whole = (min: number, max: number) => {
  const expected = `a whole number from ${min} to ${max}`;
  return z.int(expected).min(min, expected).max(max, expected);
};
const MEMORY = 'memory such as 4GiB, or a number of MiB, from 1 MiB to 64 TiB';
const MEMORY_MAX_MIB = 64 * 1024 * 1024;
/** To MiB. A bare number is MiB, the scheduler's unit. */
const memory = z.union([z.number(), z.string()], MEMORY).transform((value, context) => {
  const parsed = typeof value === 'number' ? null : parseBytes(value);
  const mib = parsed === null ? Number(value) : parsed.ok ? Number(parsed.value) / 1024 ** 2 : Number.NaN;
  if (Number.isInteger(mib) && mib >= 0 && mib <= MEMORY_MAX_MIB) return mib;
  context.issues.push({ code: 'custom', message: MEMORY, input: value });
  return z.NEVER;
});
const some = memory.refine((mib) => mib > 0, MEMORY);

/** Also as the API (`memoryBytes`) and the scheduler (`memoryMib`) call it. */
const withMemory = <T extends z.ZodType>(schema: T) =>
  z.preprocess((value) => {
    if (typeof value !== 'object' || value === null || 'memory' in value) return value;
    const { memoryMib, memoryBytes, ...rest } = value as Record<string, unknown>;
    if (memoryMib !== undefined && memoryBytes === undefined) return { ...rest, memory: memoryMib };
    if (memoryBytes !== undefined && memoryMib === undefined)
      return {
        ...rest,
        memory: typeof memoryBytes === 'string' ? `${memoryBytes} B` : Number(memoryBytes) / 1024 ** 2,
      };
    return value;
  }, schema);

const CPU_LIST = 'a Linux CPU list such as "0-3,8"';
const CPU_MAX = 8191;
const cpuList = z.union([z.array(whole(0, CPU_MAX)), z.string()], CPU_LIST).transform((value, context) => {
  const cpus = typeof value === 'string' ? strictCpuList(value) : value;
  if (cpus !== null) return [...new Set(cpus)].toSorted((a, b) => a - b);
  context.issues.push({ code: 'custom', message: CPU_LIST, input: value });
  return z.NEVER;
});

/** "0-3,8" → 0, 1, 2, 3, 8; null when it is none. */
export function strictCpuList(text: string): readonly number[] | null {
  if (text.trim() === '') return [];
  const cpus: number[] = [];
  for (const part of text.split(',')) {
    const match = /^\s*(\d{1,4})(?:-(\d{1,4}))?\s*$/.exec(part);
    if (match === null) return null;
    const [first, last] = [Number(match[1]), Number(match[2] ?? match[1])];
    if (last < first || last > CPU_MAX) return null;
    for (let cpu = first; cpu <= last; cpu++) cpus.push(cpu);
  }
  return cpus;
}

const PAGES = 'pages by size, such as {"2M": 512, "1G": 16}';
const pages = z.strictObject({ '2M': whole(0, 1e8).optional(), '1G': whole(0, 1e5).optional() }, PAGES);

const numaNode = z.strictObject(
  {
    id: whole(0, 1023).optional(),
    cpus: cpuList,
    smtSiblings: z.array(cpuList, 'a list of CPU lists such as ["0,16", "1,17"]').optional(),
    memory: memory,
    hugepages: pages.optional(),
    distances: z.array(whole(0, 255), 'a list of distances such as [10, 21]').optional(),
  },
  'a NUMA node',
);

const device = z.strictObject(
  { address: name, class: name, numaNode: whole(0, 1023).nullable().optional() },
  'a device with address and class',
);

const words = z.record(z.string(), z.string('text'), 'names and values');
const domains = z.strictObject(
  {
    rack: z.string('text').optional(),
    powerFeed: z.string('text').optional(),
    ringSegment: z.string('text').optional(),
  },
  'rack, powerFeed and ringSegment',
);

const hostEntry = z.strictObject(
  {
    name,
    /** That many hosts: NAME-1, NAME-2 … */
    count: whole(1, 100_000).optional(),
    /** Plain hosts: CPUs and memory in all, divided evenly over the NUMA nodes. */
    cpus: whole(1, CPU_MAX + 1).optional(),
    threadsPerCore: z.union([z.literal(1), z.literal(2)], '1 or 2').optional(),
    memory: some.optional(),
    /** How many, or each of them. */
    numaNodes: z
      .union([whole(1, 1024), z.array(withMemory(numaNode)).min(1)], 'a number of NUMA nodes, or a list of them')
      .optional(),
    /** Of each NUMA node of a plain host. */
    hugepages: pages.optional(),
    isolatedCpus: cpuList.optional(),
    reservedCpus: cpuList.optional(),
    reservedMemory: memory.optional(),
    labels: words.optional(),
    failureDomains: domains.optional(),
    devices: z.array(device, 'a list of devices').optional(),
    networks: z.array(name, 'a list of network names').optional(),
    unschedulable: z.boolean('true or false').optional(),
  },
  'a host',
);
type HostEntry = z.infer<typeof hostEntry>;

const rule = z.strictObject(
  {
    group: name,
    kind: z.enum(['together', 'apart', 'pair'], 'together, apart or pair'),
    soft: z.boolean('true or false').optional(),
  },
  'a rule with group and kind',
);

const vmEntry = z.strictObject(
  {
    name,
    count: whole(1, 1_000_000).optional(),
    vcpus: whole(1, 4096),
    memory: some,
    cpuPolicy: z.enum(['shared', 'dedicated', 'realtime'], 'shared, dedicated or realtime').optional(),
    smt: z.enum(['prefer', 'isolate', 'require'], 'prefer, isolate or require').optional(),
    ioThreads: whole(0, 16).optional(),
    numa: z.enum(['none', 'automatic', 'explicit'], 'none, automatic or explicit').optional(),
    cells: z.array(withMemory(z.strictObject({ vcpus: whole(1, 4096), memory: some })), 'a list of cells').optional(),
    oneNodeRequired: z.boolean('true or false').optional(),
    hugepages: z.enum(['none', '2M', '1G'], 'none, 2M or 1G').optional(),
    devices: z
      .array(
        z.strictObject({
          class: name,
          count: whole(1, 64).optional(),
          numa: z.enum(['required', 'preferred', 'none'], 'required, preferred or none').optional(),
        }),
        'a list of devices',
      )
      .optional(),
    hostSelector: words.optional(),
    networks: z.array(name, 'a list of network names').optional(),
    rules: z.array(rule, 'a list of rules').optional(),
    antiAffinityGroup: name.optional(),
    pinnedHost: name.optional(),
    preferredHosts: z.array(name, 'a list of host names').optional(),
    ha: z.boolean('true or false').optional(),
    priority: whole(0, 1000).optional(),
  },
  'a VM',
);
type VmEntry = z.infer<typeof vmEntry>;

/** A VM that goes away: what it held is free for those after it. */
const releaseEntry = z.strictObject({ release: name }, 'a VM, or {"release": "NAME"}');

const policyFile = z.strictObject(
  {
    hostReservedMemory: memory.optional(),
    vmOverhead: memory.optional(),
    vcpuOvercommit: z
      .number('a number from 0.1 to 64')
      .min(0.1, 'a number from 0.1 to 64')
      .max(64, 'a number from 0.1 to 64')
      .optional(),
    prefer: z.enum(['pack', 'spread'], 'pack or spread').optional(),
    survive: z
      .enum(['off', 'any-one-host', 'any-one-failure-domain'], 'off, any-one-host or any-one-failure-domain')
      .optional(),
  },
  'a policy',
);

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

// --------------------------------------------------------------------------------------------------------------- reading

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

/** Enough to correct the file by. */
const PROBLEMS_MAX = 10;

function check<T>(schema: z.ZodType<T>, value: unknown, file: string, path: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const fields = result.error.issues.slice(0, PROBLEMS_MAX).flatMap((issue): readonly FieldProblem[] => {
    const at = issue.path.reduce<string>(
      (text, part) =>
        typeof part === 'number' ? `${text}[${part}]` : `${text}${text === '' ? '' : '.'}${String(part)}`,
      path,
    );
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({
        field: `${at}${at === '' ? '' : '.'}${key}`,
        problem: 'is unknown',
        expected: 'no such field',
      }));
    }
    const found = issue.path.reduce<unknown>(
      (inner, part) => (inner as Record<PropertyKey, unknown> | undefined)?.[part],
      value,
    );
    const shown = found === undefined ? 'is missing' : `is ${cut(JSON.stringify(found))}`;
    return [{ field: at === '' ? 'the file' : at, problem: shown, expected: issue.message }];
  });
  throw wrong(file, fields);
}

const cut = (text: string) => (text.length <= 60 ? text : `${text.slice(0, 57)}…`);

function assertUnique(names: readonly string[], file: string, field: string): void {
  const seen = new Set<string>();
  for (const each of names) {
    if (seen.has(each)) throw problem(file, field, `names "${each}" twice`, 'a name of its own for each');
    seen.add(each);
  }
}

const problem = (file: string, field: string, what: string, expected: string) =>
  wrong(file, [{ field, problem: what, expected }]);

function wrong(file: string, fields: readonly FieldProblem[]): CliError {
  return new CliError({
    exit: EXIT.usage,
    reason: 'FILE_INVALID',
    what: `${file} cannot be used`,
    why: fields.map((each) => `${each.field} ${each.problem}, expected ${each.expected}`),
    hint: 'correct the file; `busbar schedule --help` shows what may be in it',
    fields,
  });
}
