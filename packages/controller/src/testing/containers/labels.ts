// SPDX-License-Identifier: Apache-2.0
// Which containers are ours, and whose. In place of testcontainers' own reaper, for which there is no image on site.
import { getContainerRuntimeClient } from 'testcontainers';
import { lives } from './remains.ts';

const LABEL = 'busbar.test.owner';
/** Set by setup.ts for the test workers: the mark of the process that cleans up after them. */
export const OWNER = 'BUSBAR_TEST_OWNER';

export function labels(): Record<string, string> {
  return { [LABEL]: process.env[OWNER] ?? '' };
}

/** Removes the containers of this owner, and of those that live no more. */
export async function removeContainers(owner: string): Promise<void> {
  const { dockerode } = (await getContainerRuntimeClient()).container;
  const found = await dockerode.listContainers({ all: true, filters: { label: [LABEL] } });
  for (const { Id, Labels } of found) {
    const whose = Labels[LABEL] ?? '';
    if (whose === owner || !lives(whose)) await dockerode.getContainer(Id).remove({ force: true, v: true });
  }
}
