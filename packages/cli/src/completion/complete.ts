// SPDX-License-Identifier: Apache-2.0
/**
 * `busbar __complete`: what can stand at the cursor. Called by the shell with every press of Tab, so it says nothing on
 * stderr, never fails, and gives up on a cluster that does not answer at once.
 */
import type { Argument, Command, Option } from 'commander';
import type { Io } from '../cli/io.ts';
import { buildProgram, loadNoun } from '../cli/program.ts';
import { type GlobalOptions, Session } from '../cli/session.ts';
import { oneLine } from '../output/format.ts';
import { type Candidates, FILES, NOTHING, type Place, valuesOf, words } from './values.ts';
import { splitWords } from './words.ts';

/** People wait for Tab about this long. */
const DEADLINE = '1s';
/** More than anybody reads; a shell asks before it shows so many. */
const MAX_CANDIDATES = 200;

export async function runComplete(args: readonly string[], io: Io): Promise<void> {
  const session = new Session(io);
  session.silent = true;
  session.defaultTimeout(DEADLINE);
  try {
    const [shell = '', ...rest] = args;
    const typed = shell === 'bash' ? splitWords((rest[1] ?? '').slice(0, Number(rest[0]))).slice(1) : rest.slice(1);
    const current = typed.at(-1) ?? '';
    const found = await complete(session, typed);
    io.stdout.write(render(found, current, shell === 'bash'));
  } catch {
    // The shell falls back to what it does without completion.
    io.stdout.write(':\n');
  } finally {
    session.end();
  }
}

function render({ kind, list }: Candidates, current: string, bash: boolean): string {
  if (kind === 'files') return ':files\n';
  const fitting = list.filter(({ value }) => value.startsWith(current)).slice(0, MAX_CANDIDATES);
  // Where bash ends a word, it wants only the rest.
  const cut = bash ? Math.max(current.lastIndexOf('='), current.lastIndexOf(':')) + 1 : 0;
  const lines = fitting.map(({ value, text }) => `${value.slice(cut)}\t${oneLine(text)}\n`);
  const goesOn = fitting.length > 0 && fitting.every(({ value }) => /[=./,]$/.test(value));
  return `${lines.join('')}${goesOn ? ':nospace' : ':'}\n`;
}

interface Cursor {
  readonly command: Command;
  readonly noun: string;
  /** Positional words of the command before the cursor. */
  readonly position: number;
  /** The option whose value is being typed. */
  readonly option: Option | undefined;
  readonly used: ReadonlySet<Option>;
}

async function complete(session: Session, typed: readonly string[]): Promise<Candidates> {
  const program = buildProgram(session);
  const before = typed.slice(0, -1);
  const current = typed.at(-1) ?? '';
  const cursor = await walk(session, program, before);
  const place = (name: string, of?: Option | Argument): Place => ({
    name,
    choices: of?.argChoices ?? [],
    noun: cursor.noun,
    session,
  });
  if (cursor.option !== undefined) return valuesOf(place(cursor.option.attributeName(), cursor.option), current);
  const assigned = /^(--[a-z-]+=)(.*)$/s.exec(current);
  const option = assigned === null ? undefined : findOption(cursor.command, assigned[1]?.slice(0, -1) ?? '');
  if (option !== undefined) {
    const inner = await valuesOf(place(option.attributeName(), option), assigned?.[2] ?? '');
    if (inner.kind === 'files') return FILES;
    return words(inner.list.map(({ value, text }) => ({ value: `${assigned?.[1] ?? ''}${value}`, text })));
  }
  if (current.startsWith('-')) return options(cursor);
  if (cursor.position === 0 && cursor.command.commands.length > 0) return subcommands(cursor.command);
  const { registeredArguments } = cursor.command;
  const argument = registeredArguments[cursor.position] ?? registeredArguments.findLast(({ variadic }) => variadic);
  return argument === undefined ? NOTHING : valuesOf(place(argument.name(), argument), current);
}

async function walk(session: Session, program: Command, before: readonly string[]): Promise<Cursor> {
  let command = program;
  let noun = '';
  let position = 0;
  let option: Option | undefined;
  const used = new Set<Option>();
  const global: { context?: string; endpoint: string[] } = { endpoint: [] };
  const keep = (of: Option, value: string) => {
    if (of.attributeName() === 'context') global.context = value;
    if (of.attributeName() === 'endpoint') global.endpoint.push(value);
  };
  for (const word of before) {
    if (option !== undefined) {
      keep(option, word);
      option = undefined;
    } else if (word.startsWith('-')) {
      const [name = '', value] = word.split('=', 2);
      const found = findOption(command, name);
      if (found !== undefined) used.add(found);
      if (found !== undefined && value !== undefined) keep(found, value);
      if (found !== undefined && (found.required || found.optional) && value === undefined) option = found;
    } else {
      const next = position > 0 ? undefined : findCommand(command, word);
      if (next === undefined) position++;
      else {
        if (command === program) noun = next.name();
        await loadNoun(next, session);
        command = next;
      }
    }
  }
  session.configure(global satisfies GlobalOptions);
  return { command, noun, position, option, used };
}

function findCommand(parent: Command, word: string): Command | undefined {
  return parent.commands.find((command) => command.name() === word || command.aliases().includes(word));
}

function findOption(command: Command, word: string): Option | undefined {
  for (let at: Command | null = command; at !== null; at = at.parent) {
    const found = at.options.find((option) => option.long === word || option.short === word);
    if (found !== undefined) return found;
  }
  return undefined;
}

function subcommands(parent: Command): Candidates {
  return words(
    parent.commands.map((command) => ({ value: command.name(), text: command.summary() || command.description() })),
  );
}

/** Without those that were given already; but for the ones that may be repeated. */
function options({ command, used }: Cursor): Candidates {
  const list: { value: string; text: string }[] = [];
  for (let at: Command | null = command; at !== null; at = at.parent) {
    for (const option of at.options) {
      const again = option.description.includes('repeatable') || option.long === '--endpoint';
      if (option.hidden || option.long === undefined || option.long === null || (used.has(option) && !again)) continue;
      list.push({ value: option.long, text: option.description });
    }
  }
  return words([...list, { value: '--help', text: 'this help' }]);
}
