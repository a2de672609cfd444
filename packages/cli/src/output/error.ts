// SPDX-License-Identifier: Apache-2.0
/** An error in three lines: what, why, what to do. With -o json the same as JSON, on stderr too. */
import type { CliError } from '../cli/exit.ts';
import type { Io } from '../cli/io.ts';
import { isJson, type OutputFormat } from '../cli/output.ts';
import { oneLine } from './format.ts';
import { hasColours } from './print.ts';
import { paint } from './table.ts';

export function renderError(error: CliError, io: Io, format: OutputFormat): string {
  if (isJson(format)) {
    const { what, why, hint, reason, exit, fields } = error;
    const shape = { error: what, why: why.join('; '), do: hint, reason, exitCode: exit, fields };
    return `${JSON.stringify(shape)}\n`;
  }
  const red = hasColours(io, io.stderr) ? 'red' : undefined;
  const [first = '', ...more] = error.why;
  const lines = [`${paint('error:', red)} ${oneLine(error.what)}`];
  if (first !== '') lines.push(`why: ${oneLine(first)}`, ...more.map((text) => `     ${oneLine(text)}`));
  if (error.hint !== '') lines.push(`do: ${oneLine(error.hint)}`);
  return `${lines.join('\n')}\n`;
}
