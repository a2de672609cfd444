// SPDX-License-Identifier: Apache-2.0
import { formatCpuList, parseCpuList, realCpu } from '@busbar/core/cpu-list';
import type { ObservedPlacement, Placement } from '@busbar/proto/gen/busbar/v1/vm';
import { cut } from '../api/validation.ts';

/**
 * What a VM was given against what its hypervisor has. Pure. They differ when somebody turned a knob by hand (virsh), when
 * libvirt forgot something, or when an agent of another version applied less: in each case the VM does not have what
 * placement counts on.
 */

/** A VM with hundreds of vCPUs tells the same of each. */
const SHOWN_MAX = 4;

export function driftOf(
  decided: Placement | undefined,
  observed: ObservedPlacement | undefined,
  /** Of a host with a pretended topology: nothing but CPUs is applied there. */
  realCpus: readonly number[] | null,
): string {
  if (decided === undefined || observed === undefined) return '';
  const cpu = (n: number) => (realCpus === null ? n : realCpu(n, realCpus));
  const list = (cpus: readonly number[]) => formatCpuList(cpus.map(cpu));
  const found: string[] = [];
  const compare = (what: string, wanted: string, has: string) => {
    const normal = formatCpuList(parseCpuList(has));
    if (wanted !== normal) found.push(`${what} on CPUs ${normal || '(all)'} instead of ${wanted}`);
  };
  const pins = decided.cells.flatMap(({ cpus }) => cpus);
  for (const [vcpu, pin] of pins.entries()) compare(`vCPU ${vcpu}`, list([pin]), observed.vcpuCpus[vcpu] ?? '');
  if (decided.emulatorCpus.length > 0) compare('emulator', list(decided.emulatorCpus), observed.emulatorCpus);
  for (const [thread, pin] of decided.ioThreadCpus.entries())
    compare(`I/O thread ${thread + 1}`, list([pin]), observed.ioThreadCpus[thread] ?? '');
  if (realCpus === null) {
    const nodes = formatCpuList(decided.cells.map(({ numaNode }) => numaNode));
    const has = formatCpuList(observed.numaNodes);
    if (nodes !== has) found.push(`memory on NUMA nodes ${has || '(all)'} instead of ${nodes}`);
    // Only realtime VMs have emulator CPUs of their own.
    if (decided.emulatorCpus.length > 0 && observed.realtimePriority === 0) found.push('vCPUs without FIFO priority');
  }
  const wanted = decided.devices.map(({ address }) => address).join(', ');
  const devices = observed.devices.join(', ');
  if (wanted !== devices) found.push(`devices ${devices || '(none)'} instead of ${wanted || '(none)'}`);
  const more = found.length - SHOWN_MAX;
  return found.slice(0, SHOWN_MAX).join('; ') + (more > 0 ? `; and ${more} more` : '');
}

const LIMITS = { vcpus: 512, ioThreads: 16, numaNodes: 64, devices: 32, textMax: 128 } as const;

/** What a host says is kept in the cluster store: as much as a VM can have, no more. */
export function boundedObservation(told: ObservedPlacement): ObservedPlacement {
  const texts = (list: readonly string[], max: number) => list.slice(0, max).map((text) => cut(text, LIMITS.textMax));
  return {
    vcpuCpus: texts(told.vcpuCpus, LIMITS.vcpus),
    emulatorCpus: cut(told.emulatorCpus, LIMITS.textMax),
    ioThreadCpus: texts(told.ioThreadCpus, LIMITS.ioThreads),
    numaNodes: told.numaNodes.slice(0, LIMITS.numaNodes),
    realtimePriority: told.realtimePriority,
    hugepageBytes: told.hugepageBytes,
    devices: texts(told.devices, LIMITS.devices),
  };
}

export function sameObservation(a: ObservedPlacement | undefined, b: ObservedPlacement | undefined): boolean {
  const text = (one: ObservedPlacement | undefined) =>
    one === undefined ? '' : JSON.stringify({ ...one, hugepageBytes: String(one.hugepageBytes) });
  return a === b || text(a) === text(b);
}
