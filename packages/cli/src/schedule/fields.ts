// SPDX-License-Identifier: Apache-2.0
/** What may be in the files of `busbar schedule`, field by field, and what would be right where something is wrong. */
import { z } from 'zod';
import { parseBytes } from '../manifest/units.ts';

const NAME = 'a name of 1 to 253 characters';
const name = z.string(NAME).min(1, NAME).max(253, NAME);
const whole = (min: number, max: number) => {
  const expected = `a whole number from ${min} to ${max}`;
  return z.int(expected).min(min, expected).max(max, expected);
};
export const MEMORY = 'memory such as 4GiB, or a number of MiB, from 1 MiB to 64 TiB';
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
export const withMemory = <T extends z.ZodType>(schema: T) =>
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
export const pages = z.strictObject({ '2M': whole(0, 1e8).optional(), '1G': whole(0, 1e5).optional() }, PAGES);

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

export const hostEntry = z.strictObject(
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
export type HostEntry = z.infer<typeof hostEntry>;

const rule = z.strictObject(
  {
    group: name,
    kind: z.enum(['together', 'apart', 'pair'], 'together, apart or pair'),
    soft: z.boolean('true or false').optional(),
  },
  'a rule with group and kind',
);

export const vmEntry = z.strictObject(
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
export type VmEntry = z.infer<typeof vmEntry>;

/** A VM that goes away: what it held is free for those after it. */
export const releaseEntry = z.strictObject({ release: name }, 'a VM, or {"release": "NAME"}');

export const policyFile = z.strictObject(
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
