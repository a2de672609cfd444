// SPDX-License-Identifier: Apache-2.0
/** CPUs as Linux lists them: `0-3,8`. Pure. */

/** Beyond any kernel's limit: a text that is no CPU list must not become a million numbers. */
const CPU_MAX = 65_535;

/** `0-3,8,10-11` as numbers, ascending; parts that are none are left out. */
export function parseCpuList(text: string): number[] {
  const cpus = new Set<number>();
  for (const part of text.trim().split(',')) {
    const range = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(part.trim());
    if (range === null) continue;
    const first = Number(range[1]);
    const last = range[2] === undefined ? first : Number(range[2]);
    for (let cpu = first; cpu <= Math.min(last, CPU_MAX); cpu++) cpus.add(cpu);
  }
  return [...cpus].toSorted((a, b) => a - b);
}

/** The shortest list of these CPUs. */
export function formatCpuList(cpus: readonly number[]): string {
  const sorted = [...new Set(cpus)].toSorted((a, b) => a - b);
  const parts: string[] = [];
  for (let i = 0; i < sorted.length; i++) {
    const first = sorted[i] ?? 0;
    let last = first;
    while (sorted[i + 1] === last + 1) {
      last++;
      i++;
    }
    parts.push(first === last ? `${first}` : `${first}-${last}`);
  }
  return parts.join(',');
}

/** The CPU that a CPU of a pretended topology stands for (labs; HostInventory.pretended_topology). */
export function realCpu(cpu: number, realCpus: readonly number[]): number {
  return realCpus[cpu % realCpus.length] ?? cpu;
}
