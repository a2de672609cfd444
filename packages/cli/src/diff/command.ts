// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { CliError, EXIT, usageError } from '../cli/exit.ts';
import { appendText, examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { readInput } from '../cli/values.ts';

const HELP = `
"-" is how it is in the cluster, "+" how the file wants it; what a file leaves out is not compared.
Exit codes: 0 no difference, 1 differences, 2 and more an error.`;

export function define(noun: Command, session: Session): void {
  noun.option('-f, --file <file>', 'YAML file, "-" for stdin (repeatable)', appendText).addHelpText('after', HELP);
  examples(noun, [
    'busbar diff -f guest-vm.yaml',
    'busbar diff -f guest-vm.yaml -o json',
    'generate-vms | busbar diff -f -',
  ]);
  noun.action(async (options: { file?: readonly string[] }) => {
    const files = options.file ?? [];
    if (files.length === 0) throw usageError('there is nothing to compare', '-f is missing', 'busbar diff -f FILE');
    const { parseManifests } = await import('../manifest/parse.ts');
    const { runDiff } = await import('./run.ts');
    const wanted = [];
    for (const file of files) {
      for (const manifest of parseManifests(await readInput(session.io, file), file)) wanted.push({ manifest, file });
    }
    try {
      await runDiff(session, wanted);
    } catch (error) {
      session.signal.throwIfAborted();
      const { describeError } = await import('../api/rpc-error.ts');
      throw notOne(describeError(error, session.doing));
    }
  });
}

/** 1 means "there are differences" here, so a refusal has to be another number. */
function notOne(error: CliError): CliError {
  if (error.exit !== EXIT.failed) return error;
  const { what, why, hint, reason, fields } = error;
  return new CliError({ exit: EXIT.usage, what, why, hint, reason, fields, cause: error });
}
