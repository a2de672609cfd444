// SPDX-License-Identifier: Apache-2.0
import type { DomainPaths, HostFacts } from '../domain/facts.ts';
import type { HostDriverConfig } from '../driver/host-driver.ts';
import { readKvm } from '../inventory/kvm.ts';
import { readCpus } from '../inventory/read.ts';
import { CEPH_SECRET_UUID } from './secret.ts';

/** The host that a domain starts on, as it is now: CPUs go offline, and KVM's module may come later than the agent. */
export async function readFacts(root: string, config: HostDriverConfig, paths: DomainPaths): Promise<HostFacts> {
  const { rbd, pretendTopology } = config;
  const { kvmUsable } = await readKvm(root);
  return {
    kvmUsable,
    rbd: rbd === null ? null : { ...rbd, secretUuid: CEPH_SECRET_UUID },
    paths,
    cpus: { ...(await readCpus(root)), pretended: pretendTopology !== undefined },
  };
}
