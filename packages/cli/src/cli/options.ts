// SPDX-License-Identifier: Apache-2.0
/** Options that mean the same wherever they appear. */
import type { Command } from 'commander';
import { usageError } from './exit.ts';
import { setExamples } from './help.ts';

/** Every command has them. */
export function examples(command: Command, lines: readonly string[]): Command {
  setExamples(command, lines);
  return command;
}

interface ChangeFlags {
  /** The API can make the change depend on the resource's revision. */
  readonly revision?: boolean;
  /** The change is an operation that can be waited for. */
  readonly waits?: boolean;
}

export function changeOptions(command: Command, flags: ChangeFlags = {}): Command {
  command.option('--dry-run', 'check everything, change nothing');
  if (flags.waits ?? true) command.option('--no-wait', 'do not wait for the end; print the id of the operation');
  if (flags.revision === true) {
    command.option('--if-revision <number>', 'only if nobody changed it since (meta.revision of -o json)');
  }
  return command.option('--request-id <id>', 'the same id twice within an hour is done once');
}

/** Of every `get`. */
export function getOptions(command: Command): Command {
  return columnOptions(watchOption(command));
}

/** Of every `list`. */
export function listOptions(command: Command): Command {
  return rowOptions(watchOption(command));
}

/** Of commands that are a watch by themselves. */
export function rowOptions(command: Command): Command {
  return columnOptions(command)
    .option('--sort <column>', 'order by a column or a path; -COLUMN for the reverse')
    .option('--filter <terms>', "only e.g. 'phase=running,labels.plant=north,memory>1GiB'")
    .addHelpText('after', FILTER);
}

const FILTER = `
Columns, order and filter name columns of -o wide, or paths such as spec.cpu.vcpus (busbar explain).
A filter is one or more terms with commas between them, and all must hold:
  phase=running   !=   memory>1GiB  >=  <  <=   age>2h   message~disk (contains)   name="a, b"`;

function columnOptions(command: Command): Command {
  return command
    .option('--columns <names>', 'columns to show, e.g. name,spec.cpu.vcpus,labels.plant')
    .option('--no-headers', 'leave the line of headers out');
}

function watchOption(command: Command): Command {
  return command.option('-w, --watch', 'print every change until interrupted');
}

export function labelOption(command: Command): Command {
  return command.option('-l, --label <key=value>', 'label (repeatable)', appendText);
}

export function appendText(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

export function parseLabels(given: readonly string[]): Record<string, string> {
  const labels = given.map((text) => {
    const at = text.indexOf('=');
    if (at < 1)
      throw usageError(`${JSON.stringify(text)} is no label`, 'a label is KEY=VALUE', 'write e.g. plant=north');
    const key = text.slice(0, at);
    // What encodes a request would drop it without a word.
    if (key === '__proto__')
      throw usageError('a label cannot be named "__proto__"', 'JavaScript keeps it', 'name it otherwise');
    return [key, text.slice(at + 1)] as const;
  });
  return Object.fromEntries(labels);
}
