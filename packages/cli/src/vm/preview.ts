// SPDX-License-Identifier: Apache-2.0
/** Where placement would put a VM, and why the other hosts cannot take it. Pure. */
import { formatCpuList } from '@busbar/core/cpu-list';
import type { Placement, PlacementPreview } from '@busbar/proto/gen/busbar/v1/vm';
import { formatBytes } from '../output/format.ts';

export function renderPlacement(preview: PlacementPreview | undefined): string {
  if (preview === undefined) return '';
  const lines = [preview.host === '' ? 'no host fits now:' : `it would run on ${preview.host}:`];
  for (const { host, fits, refusals } of preview.verdicts) {
    const why = refusals.map(({ checker, reason }) => `${checker}: ${reason}`).join('; ') || 'does not fit';
    lines.push(`  ${host}: ${fits ? 'fits' : why}`);
  }
  return `${[...lines, ...placedAt(preview.placement)].join('\n')}\n`;
}

/** Exactly what it gets, a line each. What a VM that floats gets is no news. */
export function placedAt(placement: Placement | undefined): readonly string[] {
  if (placement === undefined) return [];
  const { cells, emulatorCpus, ioThreadCpus, devices } = placement;
  const lines: string[] = [];
  for (const { numaNode, cpus, memoryBytes } of cells.filter((cell) => cell.cpus.length > 0)) {
    lines.push(`  NUMA node ${numaNode}: vCPUs on CPUs ${cpus.join(', ')}; ${formatBytes(memoryBytes)}`);
  }
  if (emulatorCpus.length > 0) lines.push(`  emulator on CPUs ${formatCpuList(emulatorCpus)}`);
  if (ioThreadCpus.length > 0) lines.push(`  I/O threads on CPUs ${ioThreadCpus.join(', ')}`);
  for (const device of devices) lines.push(`  ${device.class}: ${device.address}`);
  return lines;
}
