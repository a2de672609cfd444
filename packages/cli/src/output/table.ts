// SPDX-License-Identifier: Apache-2.0
/** Tables that stay readable: no lines, two blanks between columns, one column that gives way. Pure. */
import { oneLine } from './format.ts';

export type Colour = 'green' | 'yellow' | 'red' | 'dim';

export interface Column<T> {
  readonly header: string;
  value(item: T, now: Date): string;
  readonly right?: true;
  /** Cut with "…" when the line would be too long. */
  readonly shrinks?: true;
  colour?(item: T): Colour | undefined;
}

export interface TableStyle {
  readonly width: number;
  readonly now: Date;
  readonly colours: boolean;
}

const GAP = 2;
const MIN_SHRUNK = 8;
const CODES: Record<Colour, number> = { green: 32, yellow: 33, red: 31, dim: 2 };

export function renderTable<T>(columns: readonly Column<T>[], items: readonly T[], style: TableStyle): string {
  const rows = items.map((item) => columns.map((column) => oneLine(column.value(item, style.now)) || '-'));
  const widths = fit(columns, rows, style.width);
  const header = renderRow(
    columns,
    columns.map((column) => column.header),
    widths,
  );
  const lines = rows.map((cells, index) => {
    const item = items[index] as T;
    return renderRow(columns, cells, widths, (column, text) =>
      paint(text, style.colours ? column.colour?.(item) : undefined),
    );
  });
  return `${[header, ...lines].join('\n')}\n`;
}

/** Lines for a stream of changes: the widths of the first table are kept, so that columns stay in place. */
export function tableLines<T>(columns: readonly Column<T>[], first: readonly T[], style: TableStyle) {
  const rows = first.map((item) => columns.map((column) => oneLine(column.value(item, style.now)) || '-'));
  const widths = fit(columns, rows, style.width);
  return {
    header: renderRow(
      columns,
      columns.map((column) => column.header),
      widths,
    ),
    line: (item: T, now: Date) =>
      renderRow(
        columns,
        columns.map((column) => oneLine(column.value(item, now)) || '-'),
        widths,
        (column, text) => paint(text, style.colours ? column.colour?.(item) : undefined),
      ),
  };
}

function fit<T>(columns: readonly Column<T>[], rows: readonly (readonly string[])[], limit: number): number[] {
  const widths = columns.map((column, index) =>
    Math.max(column.header.length, ...rows.map((row) => length(row[index] ?? ''))),
  );
  const total = widths.reduce((sum, width) => sum + width, 0) + GAP * (columns.length - 1);
  let excess = total - limit;
  for (const [index, column] of columns.entries()) {
    const width = widths[index] ?? 0;
    if (column.shrinks !== true || excess <= 0) continue;
    const narrowed = Math.max(Math.min(width, MIN_SHRUNK), width - excess);
    excess -= width - narrowed;
    widths[index] = narrowed;
  }
  return widths;
}

function renderRow<T>(
  columns: readonly Column<T>[],
  cells: readonly string[],
  widths: readonly number[],
  decorate: (column: Column<T>, text: string) => string = (_, text) => text,
): string {
  return columns
    .map((column, index) => {
      const width = widths[index] ?? 0;
      const full = cells[index] ?? '';
      const cell = column.shrinks === true ? truncate(full, width) : full;
      const pad = ' '.repeat(Math.max(0, width - length(cell)));
      const text = decorate(column, cell);
      if (column.right === true) return pad + text;
      return index === columns.length - 1 ? text : text + pad;
    })
    .join(' '.repeat(GAP))
    .trimEnd();
}

export function truncate(text: string, width: number): string {
  const characters = [...text];
  return characters.length <= width ? text : `${characters.slice(0, Math.max(0, width - 1)).join('')}…`;
}

function length(text: string): number {
  return [...text].length;
}

export function paint(text: string, colour: Colour | undefined): string {
  return colour === undefined ? text : `\u001b[${CODES[colour]}m${text}\u001b[0m`;
}
