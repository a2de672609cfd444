// SPDX-License-Identifier: Apache-2.0
// A lab for the tests of one vitest project: made anew before the first file, taken down after the last one.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { buildGuestImage } from '@busbar/deploy/guest/build';
import { labDown, labUp } from '@busbar/deploy/lab/lab';
import { REPOSITORY } from '@busbar/deploy/lab/paths';
import type { LabPlan } from '@busbar/deploy/lab/plan';

export interface TestLab {
  readonly plan: LabPlan;
  readonly guestImagePath: string;
  readonly down: () => Promise<void>;
}

/**
 * The tests' labs are their own (`test-…`), and so is the configuration of the `busbar` command: whoever runs the tests keeps
 * the lab, the contexts and the current context that they had.
 */
export async function setUpTestLab(
  name: `test-${string}`,
  size: { readonly hosts?: number; readonly witnesses?: number; readonly etcdQuotaMib?: number } = {},
): Promise<TestLab> {
  const directory = join(REPOSITORY, '.cache/test');
  mkdirSync(directory, { recursive: true });
  process.env['BUSBAR_CONFIG'] = join(directory, `${name}.yaml`);
  const progress = (line: string) => process.stderr.write(`lab "${name}": ${line}\n`);
  const image = await buildGuestImage();
  // What an earlier run left is not to be trusted.
  await labDown(name, { progress });
  const plan = await labUp({ name, ...size, progress });
  return {
    plan,
    guestImagePath: image.path,
    down: async () => {
      if (process.env['BUSBAR_KEEP_LAB'] === undefined) await labDown(name, { progress });
    },
  };
}
