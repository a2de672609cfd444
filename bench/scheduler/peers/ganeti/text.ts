// SPDX-License-Identifier: Apache-2.0
// What ganeti's htools read: their text backend (five sections, one empty line between two) and the request of an
// iallocator. Everything that would make hail count otherwise than we do is switched off here, and said why.
import type { Capacity, Flavour } from '../../workload/flavour.ts';

export interface PlacedOn extends Flavour {
  /** Index of the host. */
  readonly host: number;
}

const GROUP = '00000000-0000-4000-8000-000000000001';
// One node per VM and no disk on the node: the storage is a cluster of its own, as ours.
const TEMPLATE = 'rbd';
const DISK_MIB = 1024;
// More than any cluster here uses: disks and spindles must never be what binds.
const PLENTY = 100_000;
// hail refuses a VM that would leave a node exactly nothing; flavours that divide the host evenly would lose one each.
const SPARE_MIB = 1;

export function clusterText(hosts: number, host: Capacity, placed: readonly PlacedOn[], standard: Flavour): string {
  const memory = host.memoryMib + SPARE_MIB;
  const free = Array.from({ length: hosts }, () => memory);
  for (const { host: on, memoryMib } of placed) free[on] = (free[on] ?? 0) - memoryMib;
  const groups = [`default|${GROUP}|preferred||`];
  const nodes = free.map((memoryFree, index) =>
    [
      nodeName(index),
      memory,
      0, // Memory of the node itself: ours has none reserved in these rows.
      memoryFree, // Total less the instances', or hail sees memory that is "missing" and takes it off.
      PLENTY * DISK_MIB,
      PLENTY * DISK_MIB,
      host.cpus,
      index === 0 ? 'M' : 'N',
      GROUP,
      PLENTY,
      '',
      'N',
      PLENTY,
      0, // CPUs of the node itself; left out, it is 1 and each node loses one.
      '1.0',
    ].join('|'),
  );
  const instances = placed.map(({ host: on, vcpus, memoryMib }, index) =>
    [`placed${index}`, memoryMib, DISK_MIB, vcpus, 'running', 'Y', nodeName(on), '', TEMPLATE, '', 1, '-', 'N'].join(
      '|',
    ),
  );
  // memory, CPUs, disk, disks, NICs, spindles
  const spec = ({ vcpus, memoryMib }: Flavour): string => [memoryMib, vcpus, DISK_MIB, 1, 1, 1].join(',');
  const smallest = [0, 1, 0, 0, 0, 0].join(',');
  const largest = [host.memoryMib, host.cpus, PLENTY * DISK_MIB, 16, 8, 12].join(',');
  // Ratios: one vCPU per CPU (left out: 4, over-commit), spindles without limit.
  const policy = `${spec(standard)}|${smallest};${largest}|${TEMPLATE}|1.0|${PLENTY}`;
  const policies = [`|${policy}`, `default|${policy}`];
  return [groups, nodes, instances, [], policies].map((lines) => lines.map((line) => `${line}\n`).join('')).join('\n');
}

/** hspace fills with a largest and with a standard size, whatever one asks for: one size for both. */
export function uniformClusterText(hosts: number, host: Capacity, size: Flavour): string {
  const spec = [size.memoryMib, size.vcpus, DISK_MIB, 1, 1, 1].join(',');
  return clusterText(hosts, host, [], size).replaceAll(/\|[\d,]+;[\d,]+\|/g, `|${spec};${spec}|`);
}

export function nodeName(index: number): string {
  return `node${index}`;
}

function instance(name: string, { vcpus, memoryMib }: Flavour): object {
  return {
    name,
    memory: memoryMib,
    vcpus,
    disk_space_total: DISK_MIB,
    disks: [{ mode: 'rw', size: DISK_MIB }],
    disk_template: TEMPLATE,
    spindle_use: 1,
    nics: [],
    tags: [],
    os: 'none',
    hypervisor: 'kvm',
    required_nodes: 1,
  };
}

/** With the cluster in a text file, hail reads only the request of this document, but wants the others to be there. */
function document(request: object): string {
  const empty = { cluster_tags: [], enabled_hypervisors: ['kvm'], nodegroups: {}, nodes: {}, instances: {} };
  return JSON.stringify({ version: 2, cluster_name: 'bench', ...empty, request });
}

export function allocateRequest(flavour: Flavour): string {
  return document({ type: 'allocate', ...instance('asked', flavour) });
}

/** All or none of them, one after the other, in one process. */
export function multiAllocateRequest(flavours: readonly Flavour[]): string {
  const instances = flavours.map((flavour, index) => ({ type: 'allocate', ...instance(`asked${index}`, flavour) }));
  return document({ type: 'multi-allocate', instances });
}
