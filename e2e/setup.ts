// SPDX-License-Identifier: Apache-2.0
// Once for all e2e tests: a lab, the guest image in it, and a network. Taken down at the end.
import type { TestProject } from 'vitest/node';
import { busbarOk, eventually, json, LAB } from './lab.ts';
import { setUpTestLab } from './test-lab.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** The first three numbers of the guests' subnet. */
    guestSubnet: string;
    guestImagePath: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const lab = await setUpTestLab(LAB);
  await untilHostsReady(lab.plan.hosts.length);
  await busbarOk(['image', 'import', 'busbar-guest', lab.guestImagePath]);
  await busbarOk(['network', 'create', 'plant', '--kind', 'linux', '--bridge', 'br-vm']);
  project.provide('guestSubnet', `10.78.${lab.plan.spec.index}`);
  project.provide('guestImagePath', lab.guestImagePath);
  return lab.down;
}

async function untilHostsReady(count: number): Promise<void> {
  await eventually(`${count} hosts ready`, 60_000, async () => {
    const { hosts } = await json<{ hosts: { status: { state: string } }[] }>(['host', 'list']);
    return hosts.filter((host) => host.status.state === 'HOST_STATE_READY').length === count ? true : null;
  });
}
