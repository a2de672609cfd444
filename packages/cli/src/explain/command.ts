// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';

export function define(noun: Command, session: Session): void {
  noun.argument('[path]', 'KIND, or KIND and a path, e.g. vm.spec.disks.bus');
  examples(noun, ['busbar explain', 'busbar explain vm', 'busbar explain vm.spec.memoryBytes']);
  noun.action(async (path: string | undefined) => {
    const { runExplain } = await import('./explain.ts');
    await runExplain(session, path);
  });
}
