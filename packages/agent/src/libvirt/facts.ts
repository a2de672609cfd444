// SPDX-License-Identifier: Apache-2.0
import type { DomainPaths, HostFacts } from '../domain/facts.ts';
import type { HostDriverConfig } from '../driver/host-driver.ts';
import { readKvm } from '../inventory/kvm.ts';
import { readCpus } from '../inventory/read.ts';

/** The host that a domain starts on, as it is now: CPUs go offline, and KVM's module may come later than the agent. */
export async function readFacts(
  root: string,
  { pretendTopology }: HostDriverConfig,
  paths: DomainPaths,
): Promise<Omit<HostFacts, 'rbd' | 'uid'>> {
  const { kvmUsable } = await readKvm(root);
  return {
    kvmUsable,
    paths,
    cpus: { ...(await readCpus(root)), pretended: pretendTopology !== undefined },
  };
}
