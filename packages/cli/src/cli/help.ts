// SPDX-License-Identifier: Apache-2.0
/**
 * How `--help` looks: what it does, examples (most people copy one), then commands and options. The options that every
 * command has are one line, or they would bury the two that matter.
 */
import type { Command, Help, HelpConfiguration } from 'commander';
import { hasColours } from '../output/print.ts';
import { paint } from '../output/table.ts';
import type { Io } from './io.ts';

/** What fits a terminal that nobody made wider, and the width of our tables. */
const WIDTH = 100;
const EVERYWHERE = 'As everywhere: -o FORMAT, --context NAME, --endpoint HOST:PORT, --timeout TIME (busbar --help)';

const shown = new WeakMap<Command, readonly string[]>();

export function setExamples(command: Command, lines: readonly string[]): void {
  shown.set(command, lines);
}

export function examplesOf(command: Command): readonly string[] {
  return shown.get(command) ?? [];
}

export function helpConfiguration(io: Io): HelpConfiguration {
  const colours = hasColours(io, io.stdout);
  return {
    helpWidth: Math.min(WIDTH, (io.stdout.isTTY === true ? io.stdout.columns : undefined) ?? WIDTH),
    styleTitle: (title) => paint(title, colours ? 'bold' : undefined),
    // It works, and everybody knows --help.
    visibleCommands: (command) => command.commands.filter((one) => one.name() !== 'help'),
    subcommandTerm: (command) => [command.name(), ...command.registeredArguments.map(usageOf)].join(' '),
    optionDescription({ description, argChoices, defaultValue }) {
      const choices = argChoices === undefined ? '' : `: ${argChoices.join(', ')}`;
      const otherwise = typeof defaultValue === 'string' ? ` (default: ${defaultValue})` : '';
      return `${description}${choices}${otherwise}`;
    },
    argumentDescription: ({ description, argChoices }) =>
      `${description}${argChoices === undefined ? '' : `: ${argChoices.join(', ')}`}`,
    formatHelp: format,
  };
}

function format(command: Command, helper: Help): string {
  const width = helper.padWidth(command, helper);
  const item = (term: string, text: string) => helper.formatItem(term, width, text, helper);
  const section = (title: string, lines: readonly string[]) =>
    lines.length === 0 ? [] : ['', helper.styleTitle(title), ...lines];
  const commands = helper.groupItems(
    [...command.commands],
    [...helper.visibleCommands(command)],
    (one) => one.helpGroup() || 'Commands:',
  );
  const options = helper.visibleOptions(command);
  const lines = [
    helper.boxWrap(helper.commandDescription(command), helper.helpWidth ?? WIDTH),
    ...section(
      'Examples:',
      examplesOf(command).map((line) => `  ${line}`),
    ),
    ...section('Usage:', [`  ${usage(command)}`]),
    ...[...commands].flatMap(([title, group]) =>
      section(
        title,
        group.map((one) => item(helper.subcommandTerm(one), withAliases(one, helper.subcommandDescription(one)))),
      ),
    ),
    ...section(
      'Arguments:',
      helper.visibleArguments(command).map((one) => item(usageOf(one), helper.argumentDescription(one))),
    ),
    ...section(
      'Options:',
      options.map((one) => item(helper.optionTerm(one), helper.optionDescription(one))),
    ),
    ...(command.parent === null ? [] : ['', EVERYWHERE]),
  ];
  return `${lines.join('\n')}\n`;
}

function withAliases(command: Command, text: string): string {
  // A noun may be written in the plural: who tries it finds out.
  const aliases = command.commands.length > 0 || command.parent?.parent === null ? [] : command.aliases();
  return aliases.length === 0 ? text : `${text} Also: ${aliases.join(', ')}`;
}

function usage(command: Command): string {
  const path: string[] = [];
  for (let at: Command | null = command; at !== null; at = at.parent) path.unshift(at.name());
  const words = command.commands.length > 0 ? ['COMMAND'] : command.registeredArguments.map(usageOf);
  const required = command.options.filter(({ mandatory }) => mandatory).map(({ flags }) => flags);
  const line = [...path, ...words, ...required, '[options]'].join(' ');
  if (line.length + 2 <= WIDTH) return line;
  return [[...path, ...words].join(' '), [...required, '[options]'].join(' ')].join('\n      ');
}

function usageOf(argument: { name(): string; readonly required: boolean; readonly variadic: boolean }): string {
  const name = `${argument.name()}${argument.variadic ? '...' : ''}`;
  return argument.required ? `<${name}>` : `[${name}]`;
}
