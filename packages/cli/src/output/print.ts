// SPDX-License-Identifier: Apache-2.0
/** Results on stdout, in the format asked for. Nothing but data goes there. */
import { unreachable } from '@busbar/core/assert';
import { usageError } from '../cli/exit.ts';
import type { Io, TerminalOutput } from '../cli/io.ts';
import type { Session } from '../cli/session.ts';
import type { TableStyle } from './table.ts';

/** What tables fit when nobody says how wide the terminal is. */
const DEFAULT_WIDTH = 100;

export interface Forms {
  readonly json: () => unknown;
  readonly table: () => string;
  /** For -o jsonl, one line each; without it the whole is one line. */
  readonly lines?: () => readonly unknown[];
  /** For -o name, e.g. "vm/web"; without it the command has nothing that has a name. */
  readonly names?: () => readonly string[];
}

export async function print(session: Session, forms: Forms): Promise<void> {
  const { io, output } = session;
  switch (output) {
    case 'table':
    case 'wide':
      return write(io, forms.table());
    case 'json':
      return write(io, `${JSON.stringify(forms.json(), null, 2)}\n`);
    case 'jsonl':
      return write(io, (forms.lines?.() ?? [forms.json()]).map((line) => `${JSON.stringify(line)}\n`).join(''));
    case 'yaml':
      return write(io, await toYaml(forms.json()));
    case 'name':
      if (forms.names === undefined) throw nameless();
      return write(
        io,
        forms
          .names()
          .map((name) => `${name}\n`)
          .join(''),
      );
    default:
      return unreachable(output);
  }
}

export interface ElementForms {
  readonly json: () => unknown;
  readonly line: () => string;
  readonly name?: () => string;
}

/** One element of a stream: a line of JSON, a YAML document, a name or a line of a table. */
export async function printElement(session: Session, forms: ElementForms): Promise<void> {
  const { io, output } = session;
  switch (output) {
    case 'table':
    case 'wide':
      return write(io, `${forms.line()}\n`);
    case 'json':
    case 'jsonl':
      return write(io, `${JSON.stringify(forms.json())}\n`);
    case 'yaml':
      return write(io, `---\n${await toYaml(forms.json())}`);
    case 'name':
      if (forms.name === undefined) throw nameless();
      return write(io, `${forms.name()}\n`);
    default:
      return unreachable(output);
  }
}

function nameless(): Error {
  return usageError('-o name is not possible here', 'the result is not a resource with a name', 'use -o json');
}

export async function toYaml(value: unknown): Promise<string> {
  const { stringify } = await import('yaml');
  return stringify(value, { lineWidth: 0 });
}

export function write(io: Io, text: string): void {
  io.stdout.write(text);
}

/** Progress and hints: never on stdout. */
export function note(io: Io, text: string): void {
  io.stderr.write(`${text}\n`);
}

export function hasColours(io: Io, stream: TerminalOutput): boolean {
  return stream.isTTY === true && (io.env['NO_COLOR'] ?? '') === '' && io.env['TERM'] !== 'dumb';
}

export function tableStyle(session: Session): TableStyle {
  const { io } = session;
  const narrow = io.stdout.isTTY === true ? (io.stdout.columns ?? DEFAULT_WIDTH) : DEFAULT_WIDTH;
  // Whoever asks for everything gets everything, as long as the lines may be.
  const width = session.output === 'wide' ? Number.POSITIVE_INFINITY : narrow;
  return { width, now: io.now(), colours: hasColours(io, io.stdout) };
}
