// SPDX-License-Identifier: Apache-2.0
// Once for all e2e tests: a lab, the guest image in it, and a network. Taken down at the end.
import { buildGuestImage } from '@busbar/deploy/guest/build';
import { labDown, labUp } from '@busbar/deploy/lab/lab';
import type { TestProject } from 'vitest/node';
import { busbarOk, eventually, json, LAB } from './lab.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** The first three numbers of the guests' subnet. */
    guestSubnet: string;
    guestImagePath: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const progress = (line: string) => process.stderr.write(`e2e lab: ${line}\n`);
  const image = await buildGuestImage();
  // What an earlier run left is not to be trusted.
  await labDown(LAB, { progress });
  const plan = await labUp({ name: LAB, progress });
  await untilHostsReady(plan.hosts.length);
  await busbarOk(['image', 'import', 'busbar-guest', image.path]);
  await busbarOk(['network', 'create', 'plant', '--kind', 'linux', '--bridge', 'br-vm']);
  project.provide('guestSubnet', `10.78.${plan.spec.index}`);
  project.provide('guestImagePath', image.path);
  return async () => {
    if (process.env.BUSBAR_KEEP_LAB === undefined) await labDown(LAB, { progress });
  };
}

async function untilHostsReady(count: number): Promise<void> {
  await eventually(`${count} hosts ready`, 60_000, async () => {
    const { hosts } = await json<{ hosts: { status: { state: string } }[] }>(['host', 'list']);
    return hosts.filter((host) => host.status.state === 'HOST_STATE_READY').length === count ? true : null;
  });
}
