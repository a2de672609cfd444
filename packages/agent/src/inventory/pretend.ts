// SPDX-License-Identifier: Apache-2.0
import { parseCpuList } from '@busbar/core/cpu-list';
import type { HostInventory, NumaNode } from '@busbar/proto/gen/busbar/v1/host';
import { z } from 'zod';

/**
 * A topology that a host says to have, for labs: placement sees it, and what it decides is brought onto the CPUs that exist.
 * Hugepages, NUMA binding, FIFO priorities and locked memory are then left out of the domains.
 */

const WANT = {
  cpus: 'a Linux CPU list such as "0-7,16"',
  node: 'a NUMA node: {cpus, siblings?, memoryMib?, hugepages?}',
  memory: 'a whole number of MiB',
} as const;

const cpus = z.string(WANT.cpus).regex(/^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*$/, WANT.cpus);
const mib = z
  .int(WANT.memory)
  .min(1, WANT.memory)
  .max(16 * 1024 ** 2, 'at most 16 TiB');

export const PretendTopology = z.strictObject(
  {
    /** Ids are counted from 0. */
    numaNodes: z
      .array(
        z.strictObject(
          {
            cpus,
            /** Hardware threads that share a core; none by default. */
            siblings: z.array(cpus, 'a list of CPU lists').optional(),
            /** By default an equal share of the memory that exists. */
            memoryMib: mib.optional(),
            hugepages: z
              .array(
                z.strictObject(
                  {
                    sizeMib: mib,
                    pages: z
                      .int()
                      .min(0)
                      .max(16 * 1024 ** 2),
                  },
                  'sizeMib and pages',
                ),
              )
              .optional(),
          },
          WANT.node,
        ),
        'a list of NUMA nodes',
      )
      .min(1, 'at least one NUMA node')
      .max(64, 'at most 64 NUMA nodes')
      .refine((nodes) => {
        const all = nodes.flatMap((node) => parseCpuList(node.cpus));
        return new Set(all).size === all.length;
      }, 'each CPU in one NUMA node'),
    isolatedCpus: cpus.optional(),
  },
  'numaNodes, and isolatedCpus if there are any',
);
export type PretendTopology = z.infer<typeof PretendTopology>;

const MIB = 1024n ** 2n;
const [LOCAL, REMOTE] = [10, 21];

export function pretended(found: HostInventory, topology: PretendTopology, realCpus: readonly number[]): HostInventory {
  const count = topology.numaNodes.length;
  const share = found.memoryBytes / BigInt(count) / MIB;
  const numaNodes = topology.numaNodes.map((node, id): NumaNode => {
    const own = parseCpuList(node.cpus);
    const shared = (node.siblings ?? []).map((set) => parseCpuList(set).filter((cpu) => own.includes(cpu)));
    const alone = own.filter((cpu) => !shared.some((set) => set.includes(cpu)));
    return {
      id,
      cpus: own,
      smtSiblingSets: [...shared, ...alone.map((cpu) => [cpu])].map((set) => set.join(',')),
      memoryBytes: BigInt(node.memoryMib ?? share) * MIB,
      hugepages: (node.hugepages ?? []).map(({ sizeMib, pages }) => ({
        pageSizeBytes: BigInt(sizeMib) * MIB,
        total: BigInt(pages),
        free: BigInt(pages),
      })),
      distances: Array.from({ length: count }, (_, other) => (other === id ? LOCAL : REMOTE)),
    };
  });
  return {
    ...found,
    numaNodes,
    cpu:
      found.cpu === undefined
        ? undefined
        : { ...found.cpu, onlineCpus: numaNodes.reduce((sum, node) => sum + node.cpus.length, 0) },
    isolatedCpus: parseCpuList(topology.isolatedCpus ?? ''),
    memoryBytes: numaNodes.reduce((sum, node) => sum + node.memoryBytes, 0n),
    pretendedTopology: { realCpus: [...realCpus] },
  };
}
