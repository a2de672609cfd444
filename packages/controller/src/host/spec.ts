// SPDX-License-Identifier: Apache-2.0
import { HostSpec } from '@busbar/proto/gen/busbar/v1/host';
import { z } from 'zod';
import { count, NAME_RULE } from '../api/validation.ts';
import { list, word } from '../bounds/schema.ts';

const MIB = 1024n ** 2n;
const TIB = 1024n ** 4n;
/** The kernel's limit on x86 (NR_CPUS of distributions is 8192; no machine comes near). */
const CPUS_MAX = 4096;

/** What a host has that says nothing about itself. */
export const NEW_HOST_SPEC: HostSpec = HostSpec.fromPartial({});

/** Times 256 devices: with virtual functions the largest machines have some 4,000. A VM asks for 16 classes at most. */
const CLASSES_MAX = 16;

const WORD_RULE = "up to 63 letters, digits, '-', '_', '.', or nothing";
const domain = word(63, /^$|^[A-Za-z0-9][-A-Za-z0-9_.]*$/, WORD_RULE);

const DEVICE_RULE = 'an address such as "0000:3b:00.1" or vendor:product such as "8086:1521", in lower case';
const device = word(12, /^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$|^[0-9a-f]{4}:[0-9a-f]{4}$/, DEVICE_RULE);

const schema = z.object({
  unschedulable: z.boolean(),
  reservedCpus: list(count(0, CPUS_MAX - 1), 0, CPUS_MAX, `at most ${CPUS_MAX} CPUs`).refine(
    (cpus) => cpus.every((cpu, i) => i === 0 || cpu > (cpus[i - 1] ?? -1)),
    'CPU numbers, ascending, each once',
  ),
  reservedMemoryBytes: z
    .bigint()
    .min(0n, '0 to 16 TiB')
    .max(16n * TIB, '0 to 16 TiB')
    .refine((v) => v % MIB === 0n, 'a multiple of 1 MiB'),
  failureDomains: z.object({ rack: domain, powerFeed: domain, ringSegment: domain }).optional(),
  deviceClasses: list(
    z.object({
      name: word(63, /^[a-z]([-a-z0-9]*[a-z0-9])?$/, NAME_RULE),
      devices: list(device, 1, 256, '1 to 256 devices'),
    }),
    0,
    CLASSES_MAX,
    `at most ${CLASSES_MAX} classes`,
  ).superRefine((classes, context) => {
    const seen = new Set<string>();
    classes.forEach(({ name }, index) => {
      if (seen.has(name)) context.addIssue({ code: 'custom', path: [index, 'name'], message: 'each class once' });
      seen.add(name);
    });
  }),
});

export const hostSpecSchema = schema as unknown as z.ZodType<HostSpec>;

/** Every field of HostSpec that a mask may name. The type makes a forgotten one a compile error. */
const FIELDS: Readonly<Record<keyof HostSpec, true>> = {
  unschedulable: true,
  reservedCpus: true,
  reservedMemoryBytes: true,
  failureDomains: true,
  deviceClasses: true,
};
export const HOST_FIELDS = Object.keys(FIELDS) as (keyof HostSpec)[];

/**
 * What an operator may change. The rest reaches what the host itself is made of: a device class hands a guest any PCI
 * device, the host's own disk controller among them; reserved CPUs and memory are what keeps Ceph, etcd and the lease
 * alive; failure domains decide whether a loss is survived (ADR 0050).
 */
const OPERATORS: ReadonlySet<keyof HostSpec> = new Set(['unschedulable']);

/** The fields that differ and that only an admin may change. */
export function administeredChanges(before: HostSpec | undefined, after: HostSpec): readonly (keyof HostSpec)[] {
  return HOST_FIELDS.filter((field) => !OPERATORS.has(field) && storedText(before, field) !== storedText(after, field));
}

/** As it is stored: what is left out, and what has its default, are the same. */
function storedText(spec: HostSpec | undefined, field: keyof HostSpec): string {
  return JSON.stringify(HostSpec.toJSON(mergeHostSpec(undefined, spec, [field])));
}

/** The host's part with the named fields taken from the request. */
export function mergeHostSpec(
  before: HostSpec | undefined,
  given: HostSpec | undefined,
  fields: readonly (keyof HostSpec)[],
): HostSpec {
  const merged: HostSpec = { ...NEW_HOST_SPEC, ...before };
  for (const field of fields) Object.assign(merged, { [field]: (given ?? NEW_HOST_SPEC)[field] });
  return merged;
}
