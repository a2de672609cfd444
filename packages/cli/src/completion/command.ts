// SPDX-License-Identifier: Apache-2.0
import { Argument, type Command } from 'commander';
import { examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { write } from '../output/print.ts';
import { SCRIPTS, type Shell } from './scripts.ts';

const HELP = `
Completes commands, options and values, among them the names of what there is in the cluster now.
A cluster that does not answer within a second completes nothing.
  bash   busbar completion bash > ~/.local/share/bash-completion/completions/busbar
  zsh    busbar completion zsh > ~/.zsh/completions/_busbar     (a directory of $fpath)
  fish   busbar completion fish > ~/.config/fish/completions/busbar.fish`;

export function define(noun: Command, session: Session): void {
  noun.addArgument(new Argument('<shell>', 'your shell').choices(Object.keys(SCRIPTS))).addHelpText('after', HELP);
  examples(noun, ['source <(busbar completion bash)', 'busbar completion fish | source']);
  noun.action((shell: Shell) => write(session.io, SCRIPTS[shell]));
}
