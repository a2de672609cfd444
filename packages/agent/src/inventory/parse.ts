// SPDX-License-Identifier: Apache-2.0
/** What the kernel writes, as data. Pure. */

export interface CpuIdentity {
  readonly model: string;
  readonly vendor: string;
  /** Sorted. */
  readonly flags: readonly string[];
}

/** The first processor of /proc/cpuinfo; all are alike on machines that run VMs. */
export function parseCpuInfo(text: string): CpuIdentity {
  const field = (name: string): string => new RegExp(`^${name}\\s*:\\s*(.*)$`, 'm').exec(text)?.[1]?.trim() ?? '';
  const flags = field('flags')
    .split(/\s+/)
    .filter((flag) => flag !== '');
  return { model: field('model name'), vendor: field('vendor_id'), flags: [...new Set(flags)].toSorted() };
}

/** Bytes of a line `MemTotal:  123 kB` or `Node 0 MemTotal:  123 kB`; 0 when there is none. */
export function parseMemory(text: string, field: string): bigint {
  const kib = new RegExp(`^(?:Node \\d+ )?${field}:\\s*(\\d+) kB$`, 'm').exec(text)?.[1];
  return kib === undefined ? 0n : BigInt(kib) * 1024n;
}

/** Page size in bytes of a directory `hugepages-2048kB`; null when it is something else. */
export function parseHugepageSize(directory: string): bigint | null {
  const kib = /^hugepages-(\d+)kB$/.exec(directory)?.[1];
  return kib === undefined ? null : BigInt(kib) * 1024n;
}

export function parseDistances(text: string): number[] {
  return text
    .split(/\s+/)
    .filter((part) => /^\d+$/.test(part))
    .map(Number);
}

/** A value of /etc/os-release, which is written like a shell's assignment. */
export function parseOsRelease(text: string, key: string): string {
  const value = new RegExp(`^${key}=(.*)$`, 'm').exec(text)?.[1]?.trim() ?? '';
  const quoted = /^(["'])(.*)\1$/.exec(value);
  return quoted === null ? value : (quoted[2] ?? '').replace(/\\(["$`\\])/g, '$1');
}
