// SPDX-License-Identifier: Apache-2.0
/** Results on stdout, in the format asked for. Nothing but data goes there. */
import type { Io, TerminalOutput } from '../cli/io.ts';
import type { Session } from '../cli/session.ts';
import type { TableStyle } from './table.ts';

/** What tables fit when nobody says how wide the terminal is. */
const DEFAULT_WIDTH = 100;

export async function print(session: Session, forms: { json: () => unknown; table: () => string }): Promise<void> {
  if (session.output === 'table') write(session.io, forms.table());
  else if (session.output === 'json') write(session.io, `${JSON.stringify(forms.json(), null, 2)}\n`);
  else write(session.io, await toYaml(forms.json()));
}

/** One element of a stream: a line of JSON, a YAML document or a line of a table. */
export async function printElement(
  session: Session,
  forms: { json: () => unknown; line: () => string },
): Promise<void> {
  if (session.output === 'table') write(session.io, `${forms.line()}\n`);
  else if (session.output === 'json') write(session.io, `${JSON.stringify(forms.json())}\n`);
  else write(session.io, `---\n${await toYaml(forms.json())}`);
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

export function tableStyle(io: Io): TableStyle {
  const width = io.stdout.isTTY === true ? (io.stdout.columns ?? DEFAULT_WIDTH) : DEFAULT_WIDTH;
  return { width, now: io.now(), colours: hasColours(io, io.stdout) };
}
