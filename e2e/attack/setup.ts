// SPDX-License-Identifier: Apache-2.0
// Once for all attacks: a lab with a hypervisor that has no vote, the guest image, and a network. Taken down at the end.
import { busbarOk } from '@busbar/deploy/demo/busbar';
import { setUpTestLab } from '../test-lab.ts';
import { LAB, untilReady } from './lab.ts';

export default async function setup(): Promise<() => Promise<void>> {
  // A small quota, so that filling etcd does not take gigabytes: budgets and levels are shares of it.
  // Witnesses vote first, then host1: host2 holds nothing that is a voter's.
  const lab = await setUpTestLab(LAB, { hosts: 2, witnesses: 2, etcdQuotaMib: 256 });
  await untilReady(lab.plan.hosts.length);
  await busbarOk(LAB, ['image', 'import', 'busbar-guest', lab.guestImagePath]);
  await busbarOk(LAB, ['network', 'create', 'plant', '--kind', 'linux', '--bridge', 'br-vm']);
  return lab.down;
}
