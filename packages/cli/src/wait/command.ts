// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { CONDITIONS_HELP } from './condition.ts';

export function define(noun: Command, session: Session): void {
  noun
    .argument('<resource>', 'KIND/NAME, e.g. vm/guest-1 or operation/ID')
    .requiredOption('--for <condition>', "e.g. 'phase=running', deleted, operation")
    .addHelpText('after', CONDITIONS_HELP);
  examples(noun, [
    'busbar wait vm/guest-1 --for phase=running --timeout 2min',
    "busbar wait host/host3 --for 'state=ready,vms=0'",
    'busbar wait vm/guest-1 --for deleted',
    'busbar wait vm/guest-1 --for operation',
  ]);
  noun.action(async (resource: string, options: { for: string }) => {
    const { runWait } = await import('./wait.ts');
    await runWait(session, resource, options.for);
  });
}
