// SPDX-License-Identifier: Apache-2.0
import { formatCpuList, parseCpuList, realCpu } from '@busbar/core/cpu-list';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import type { ObservedPlacement, Placement } from '@busbar/proto/gen/busbar/v1/vm';
import { cut } from '../api/validation.ts';

/**
 * What a VM was given against what its hypervisor has. Pure. They differ when somebody turned a knob by hand (virsh), when
 * libvirt forgot something, when an agent of another version applied less, or when the host lost a CPU, memory or a device: in
 * each case the VM does not have what placement counts on.
 */

/** A VM with hundreds of vCPUs tells the same of each. */
const SHOWN_MAX = 4;

/** In every round the same question for every VM: the answer stays while none of the three is another object. */
const answers = new WeakMap<
  ObservedPlacement,
  { decided: Placement; inventory: HostInventory | undefined; text: string }
>();

export function driftOf(
  decided: Placement | undefined,
  observed: ObservedPlacement | undefined,
  /** Of the VM's host. */
  inventory: HostInventory | undefined,
): string {
  if (decided === undefined || observed === undefined) return '';
  const known = answers.get(observed);
  if (known !== undefined && known.decided === decided && known.inventory === inventory) return known.text;
  const found = [...lostBy(decided, inventory), ...differences(decided, observed, inventory)];
  const more = found.length - SHOWN_MAX;
  const text = found.slice(0, SHOWN_MAX).join('; ') + (more > 0 ? `; and ${more} more` : '');
  answers.set(observed, { decided, inventory, text });
  return text;
}

function differences(
  decided: Placement,
  observed: ObservedPlacement,
  inventory: HostInventory | undefined,
): readonly string[] {
  // Of a pretended topology nothing but CPUs is applied.
  const realCpus = inventory?.pretendedTopology?.realCpus ?? null;
  const list = (cpus: readonly number[]) =>
    formatCpuList(realCpus === null ? cpus : cpus.map((cpu) => realCpu(cpu, realCpus)));
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
  return found;
}

/** What the host no longer has: a CPU went offline, a NUMA node with its memory, a device. */
function lostBy(decided: Placement, inventory: HostInventory | undefined): readonly string[] {
  // An agent that found no NUMA nodes knows nothing of CPUs either.
  if (inventory === undefined || inventory.numaNodes.length === 0) return [];
  const online = new Set(inventory.numaNodes.flatMap(({ cpus }) => cpus));
  const nodes = new Set(inventory.numaNodes.map(({ id }) => id));
  const devices = new Set(inventory.pciDevices.map(({ address }) => address));
  const pins = [...decided.cells.flatMap(({ cpus }) => cpus), ...decided.emulatorCpus, ...decided.ioThreadCpus];
  const offline = formatCpuList(pins.filter((cpu) => !online.has(cpu)));
  return [
    ...(offline === '' ? [] : [`the host has lost CPUs ${offline}`]),
    ...decided.cells.flatMap(({ numaNode }) =>
      nodes.has(numaNode) ? [] : [`the host has lost NUMA node ${numaNode}`],
    ),
    ...decided.devices.flatMap(({ address }) => (devices.has(address) ? [] : [`the host has lost device ${address}`])),
  ];
}

const LIMITS = { vcpus: 512, ioThreads: 16, numaNodes: 64, devices: 32, textMax: 128 } as const;

/** What a host says is kept in the cluster store: as much as a VM can have, no more. */
/** A report is the same object until the next one. */
const boundeds = new WeakMap<ObservedPlacement, ObservedPlacement>();

export function boundedObservation(told: ObservedPlacement): ObservedPlacement {
  const known = boundeds.get(told);
  if (known !== undefined) return known;
  const texts = (list: readonly string[], max: number) => list.slice(0, max).map((text) => cut(text, LIMITS.textMax));
  const bounded = {
    vcpuCpus: texts(told.vcpuCpus, LIMITS.vcpus),
    emulatorCpus: cut(told.emulatorCpus, LIMITS.textMax),
    ioThreadCpus: texts(told.ioThreadCpus, LIMITS.ioThreads),
    numaNodes: told.numaNodes.slice(0, LIMITS.numaNodes),
    realtimePriority: told.realtimePriority,
    hugepageBytes: told.hugepageBytes,
    devices: texts(told.devices, LIMITS.devices),
  };
  boundeds.set(told, bounded);
  return bounded;
}

const written = new WeakMap<ObservedPlacement, string>();

export function sameObservation(a: ObservedPlacement | undefined, b: ObservedPlacement | undefined): boolean {
  return a === b || textOf(a) === textOf(b);
}

function textOf(one: ObservedPlacement | undefined): string {
  if (one === undefined) return '';
  let text = written.get(one);
  if (text === undefined) {
    text = JSON.stringify({ ...one, hugepageBytes: String(one.hugepageBytes) });
    written.set(one, text);
  }
  return text;
}
