// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';

const HELP = `
A .tar.gz of JSON files: cluster, controllers, hosts, VMs, volumes, images, networks, operations,
events, versions and the context. Only fields known to be harmless; never first-boot data, keys or
tokens. What does not answer is left out, and said.`;

export function define(noun: Command, session: Session): void {
  noun
    .option('-f, --file <file>', 'file to write (default: busbar-support-TIME.tar.gz here)')
    .addHelpText('after', HELP);
  examples(noun, ['busbar support-bundle', 'busbar support-bundle --file case-4711.tar.gz']);
  noun.action(async (options: { file?: string }) => {
    const { runBundle } = await import('./bundle.ts');
    await runBundle(session, options.file);
  });
}
