// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';

export function define(noun: Command, session: Session): void {
  noun.argument('<host>', 'host that is supposed to die; nothing happens to it');
  examples(noun, ['busbar drill host2', 'busbar drill host2 -o json']);
  noun.action(async (host: string) => (await import('./drill.ts')).drillHost(session, host));
}
