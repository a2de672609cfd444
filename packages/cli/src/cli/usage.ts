// SPDX-License-Identifier: Apache-2.0
/** What commander says of a wrong command line, in our three lines. */
import type { Command, CommanderError, Option } from 'commander';
import { nearest } from '../manifest/suggest.ts';
import { CliError, EXIT } from './exit.ts';

export function describeUsage(error: CommanderError, program: Command, args: readonly string[]): CliError {
  const { command, path } = deepest(program, args);
  const { what, why, hint } = explain(error, command, path);
  return new CliError({
    exit: EXIT.usage,
    reason: 'USAGE',
    what,
    why: [why],
    hint: hint ?? `${path} --help shows examples`,
    cause: error,
  });
}

interface Explained {
  readonly what: string;
  readonly why: string;
  readonly hint?: string | undefined;
}

function explain(error: CommanderError, command: Command, path: string): Explained {
  const [first = ''] = error.message.replace(/^error: /, '').split('\n');
  const [, word = ''] = /'([^']*)'/.exec(first) ?? [];
  const quoted = JSON.stringify(word);
  switch (error.code) {
    case 'commander.unknownCommand': {
      const known = command.commands.flatMap((one) => [one.name(), ...one.aliases()]);
      const near = nearest(word, known);
      const what = `unknown command ${quoted}`;
      return {
        what,
        why: `${path} has no such command`,
        hint: near === undefined ? `${path} --help lists them` : `did you mean ${path} ${near}?`,
      };
    }
    case 'commander.unknownOption': {
      const near = nearest(
        word,
        optionsOf(command).flatMap(({ long }) => (long === undefined || long === null ? [] : [long])),
      );
      const hint = near === undefined ? undefined : `did you mean ${near}?`;
      return { what: `unknown option ${quoted}`, why: `${path} has no such option`, hint };
    }
    case 'commander.missingArgument':
      return { what: `the ${word} is missing`, why: `the command is ${path} <${word}>` };
    case 'commander.excessArguments':
      return { what: `too many words for ${path}`, why: first.replace(/^too many arguments for '[^']*'\. /, '') };
    case 'commander.missingMandatoryOptionValue':
      return { what: `${word} is missing`, why: `${path} cannot do without` };
    case 'commander.optionMissingArgument':
      return { what: `the value of ${word} is missing`, why: 'an option of this kind is followed by its value' };
    case 'commander.invalidArgument':
      return choice(first);
    default:
      return { what: first, why: 'the command line is not understood' };
  }
}

/** "option '-o, --output <format>' argument 'xml' is invalid. Allowed choices are a, b." */
function choice(text: string): Explained {
  const match =
    /^(?:option|command-argument value) '(?:(.*?)' argument ')?([^']*)' is invalid(?: for argument '([^']*)')?\. (?:Allowed choices are (.*)\.)?/.exec(
      text,
    );
  if (match === null) return { what: text, why: 'the value is not allowed' };
  const [, option = '', value = '', argument = '', list = ''] = match;
  const choices = list.split(', ');
  const name = option === '' ? argument : (/--[a-z-]+/.exec(option)?.[0] ?? option);
  const near = nearest(value, choices);
  return {
    what: `${name} ${value} is not allowed`,
    why: `choices are ${choices.join(', ')}`,
    hint: near === undefined ? `write one of them` : `did you mean ${near}?`,
  };
}

function optionsOf(command: Command): readonly Option[] {
  return command.parent === null ? command.options : [...command.options, ...optionsOf(command.parent)];
}

/** The command that the words name, as far as they name one. */
function deepest(program: Command, args: readonly string[]): { command: Command; path: string } {
  let command = program;
  const path = [program.name()];
  for (const word of args) {
    const next = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
    if (next === undefined) continue;
    command = next;
    path.push(next.name());
  }
  return { command, path: path.join(' ') };
}
