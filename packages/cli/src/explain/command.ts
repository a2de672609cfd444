// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';

export function define(noun: Command, session: Session): void {
  noun
    .argument('[path]', 'KIND, or KIND and a path, e.g. vm.spec.disks.bus; or "placement"')
    .argument('[vm]', 'after "placement": why this VM is where it is, or finds no place');
  examples(noun, [
    'busbar explain',
    'busbar explain vm',
    'busbar explain vm.spec.memoryBytes',
    'busbar explain placement scada-1',
  ]);
  noun.action(async (path: string | undefined, vm: string | undefined) => {
    if (path === 'placement' || vm !== undefined) {
      const { explainPlacement } = await import('./placement.ts');
      return explainPlacement(session, path, vm);
    }
    const { runExplain } = await import('./explain.ts');
    await runExplain(session, path);
  });
}
