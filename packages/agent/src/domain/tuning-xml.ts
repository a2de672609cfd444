// SPDX-License-Identifier: Apache-2.0
import { formatCpuList, parseCpuList } from '@busbar/core/cpu-list';
import type { ObservedPlacement } from '@busbar/proto/gen/busbar/v1/vm';
import type { Tuning } from './tuning.ts';
import { childrenNamed, element, find, textOf, type XmlElement } from './xml.ts';

/** CPUs, memory and devices of a domain in libvirt's words, both ways. Pure. */

export function vcpuElement(count: number, { floatCpus }: Tuning): XmlElement {
  const cpuset = floatCpus.length === 0 ? undefined : formatCpuList(floatCpus);
  return element('vcpu', { placement: 'static', cpuset }, count);
}

export function cputuneElement(tuning: Tuning): XmlElement | null {
  const { vcpuCpus, emulatorCpus, ioThreadCpus, fifoPriority } = tuning;
  const children = [
    ...vcpuCpus.map((cpu, vcpu) => element('vcpupin', { vcpu, cpuset: cpu })),
    emulatorCpus.length === 0 ? null : element('emulatorpin', { cpuset: formatCpuList(emulatorCpus) }),
    ...ioThreadCpus.map((cpus, thread) =>
      // libvirt counts I/O threads from 1.
      cpus.length === 0 ? null : element('iothreadpin', { iothread: thread + 1, cpuset: formatCpuList(cpus) }),
    ),
    fifoPriority === 0
      ? null
      : element('vcpusched', { vcpus: `0-${vcpuCpus.length - 1}`, scheduler: 'fifo', priority: fifoPriority }),
  ].filter((child) => child !== null);
  return children.length === 0 ? null : element('cputune', {}, ...children);
}

export function numatuneElement({ numaNodes, cells }: Tuning): XmlElement | null {
  if (numaNodes.length === 0) return null;
  return element(
    'numatune',
    {},
    element('memory', { mode: 'strict', nodeset: formatCpuList(numaNodes) }),
    ...cells.map(({ numaNode }, cellid) => element('memnode', { cellid, mode: 'strict', nodeset: numaNode })),
  );
}

/** KSM merges pages of guests, and splitting them again takes time that realtime has not: `neverMerged`. */
export function memoryBackingElement(
  { pageBytes, cells, memoryLocked }: Tuning,
  neverMerged: boolean,
): XmlElement | null {
  const children = [
    pageBytes === 0n
      ? null
      : element(
          'hugepages',
          {},
          // The guest's NUMA nodes; libvirt refuses a nodeset where the guest has none.
          element('page', {
            size: pageBytes / 1024n,
            unit: 'KiB',
            nodeset: cells.length === 0 ? undefined : formatCpuList(cells.map((_, id) => id)),
          }),
        ),
    neverMerged ? element('nosharepages') : null,
    memoryLocked ? element('locked') : null,
  ].filter((child) => child !== null);
  return children.length === 0 ? null : element('memoryBacking', {}, ...children);
}

/** Inside `<cpu>`: what the guest sees. */
export function guestNumaElement({ cells, pageBytes }: Tuning): XmlElement | null {
  if (cells.length === 0) return null;
  let first = 0;
  return element(
    'numa',
    {},
    ...cells.map(({ vcpus, memoryBytes }, id) => {
      const cpus = formatCpuList(Array.from({ length: vcpus }, (_, i) => first + i));
      first += vcpus;
      // Nobody outside of QEMU looks into the memory.
      const memAccess = pageBytes === 0n ? undefined : 'private';
      return element('cell', { id, cpus, memory: memoryBytes / 1024n, unit: 'KiB', memAccess });
    }),
  );
}

export function hostdevElement(address: string): XmlElement {
  const [domain = '', bus = '', slot = '', fn = ''] = address.split(/[:.]/);
  return element(
    'hostdev',
    { mode: 'subsystem', type: 'pci', managed: 'yes' },
    element(
      'source',
      {},
      element('address', { domain: `0x${domain}`, bus: `0x${bus}`, slot: `0x${slot}`, function: `0x${fn}` }),
    ),
  );
}

/** What libvirt has, from its live XML. */
export function observedPlacement(domain: XmlElement): ObservedPlacement {
  const cputune = find(domain, 'cputune');
  const pins = (name: string) => (cputune === undefined ? [] : childrenNamed(cputune, name));
  const fifo = pins('vcpusched').find(({ attributes }) => attributes.scheduler === 'fifo');
  const vcpus = Number(textOf(find(domain, 'vcpu')));
  const ioThreads = Number(textOf(find(domain, 'iothreads')) || '0');
  const devices = find(domain, 'devices');
  return {
    vcpuCpus: perThread(pins('vcpupin'), 'vcpu', 0, vcpus),
    emulatorCpus: normal(pins('emulatorpin')[0]?.attributes.cpuset),
    ioThreadCpus: perThread(pins('iothreadpin'), 'iothread', 1, ioThreads),
    numaNodes: parseCpuList(find(domain, 'numatune', 'memory')?.attributes.nodeset ?? ''),
    realtimePriority: Number(fifo?.attributes.priority ?? '0') || 0,
    hugepageBytes: pageBytesOf(find(domain, 'memoryBacking', 'hugepages', 'page')),
    devices: (devices === undefined ? [] : childrenNamed(devices, 'hostdev')).flatMap((one) => addressOf(one) ?? []),
  };
}

function normal(cpuset: string | undefined): string {
  return formatCpuList(parseCpuList(cpuset ?? ''));
}

function perThread(pins: readonly XmlElement[], attribute: string, first: number, count: number): string[] {
  if (pins.length === 0) return [];
  const list = Array.from({ length: Math.min(count, 512) }, () => '');
  for (const { attributes } of pins) {
    const at = Number(attributes[attribute]) - first;
    if (list[at] !== undefined) list[at] = normal(attributes.cpuset);
  }
  return list;
}

const UNITS: Readonly<Record<string, bigint>> = { b: 1n, KiB: 1024n, MiB: 1024n ** 2n, GiB: 1024n ** 3n };

function pageBytesOf(page: XmlElement | undefined): bigint {
  const { size = '', unit = 'KiB' } = page?.attributes ?? {};
  return /^\d{1,12}$/.test(size) ? BigInt(size) * (UNITS[unit] ?? 0n) : 0n;
}

function addressOf(hostdev: XmlElement): string | null {
  const address = find(hostdev, 'source', 'address')?.attributes;
  if (hostdev.attributes.type !== 'pci' || address === undefined) return null;
  const part = (name: string) => (address[name] ?? '0x0').replace(/^0x/, '');
  const [domain, bus, slot] = [part('domain').padStart(4, '0'), part('bus'), part('slot')];
  return `${domain}:${bus.padStart(2, '0')}:${slot.padStart(2, '0')}.${part('function')}`;
}
